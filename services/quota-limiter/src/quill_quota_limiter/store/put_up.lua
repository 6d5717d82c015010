-- Puts up one organization's answer and marks unless the board already has a newer revision (L9).
-- One script, so that nobody ever sees an answer without its marks, or loses to a slower writer in between.
--
-- KEYS: 1 answer, 2 registry of meters that ever carried a mark
-- ARGV: 1 value, 2 revision, 3 digest of the marks, 4 "newer" or "rewrite",
--       5 marks as JSON {limited, suspended, active, retired}, or "" to learn whether they are needed,
--       6 and 7 prefixes of the sorted sets of limited and of suspended tokens
-- Returns "stale", "same", "marks_needed" or "written".

local CHUNK = 1000 -- below the number of values Lua can unpack at once

local function set_score(set, tokens, score)
  if not score and redis.call('EXISTS', set) == 0 then return end
  for first = 1, #tokens, CHUNK do
    local last = math.min(first + CHUNK - 1, #tokens)
    if score then
      local pairs_to_add = {}
      for at = first, last do
        pairs_to_add[#pairs_to_add + 1] = score
        pairs_to_add[#pairs_to_add + 1] = tokens[at]
      end
      redis.call('ZADD', set, unpack(pairs_to_add))
    else
      redis.call('ZREM', set, unpack(tokens, first, last))
    end
  end
end

local stored = redis.call('GET', KEYS[1])
local stored_revision, stored_marks
if stored then
  stored_revision, stored_marks = string.match(stored, '^{"revision":(%d+),"marks":"(%x+)"')
end
local revision = tonumber(ARGV[2])
stored_revision = tonumber(stored_revision or '0')
if stored_revision > revision then return 'stale' end
if ARGV[4] == 'newer' then
  if stored_revision == revision then return 'same' end
  if stored_marks == ARGV[3] then
    redis.call('SET', KEYS[1], ARGV[1])
    return 'written'
  end
end
if ARGV[5] == '' then return 'marks_needed' end

local marks = cjson.decode(ARGV[5])
for meter in pairs(marks.limited) do redis.call('SADD', KEYS[2], meter) end
for meter in pairs(marks.suspended) do redis.call('SADD', KEYS[2], meter) end
for _, meter in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  set_score(ARGV[6] .. meter, marks.active, marks.limited[meter])
  set_score(ARGV[7] .. meter, marks.active, marks.suspended[meter])
  set_score(ARGV[6] .. meter, marks.retired, nil)
  set_score(ARGV[7] .. meter, marks.retired, nil)
end
redis.call('SET', KEYS[1], ARGV[1])
return 'written'
