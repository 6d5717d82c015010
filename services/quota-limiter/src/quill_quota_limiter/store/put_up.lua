-- Puts up one organization's answer, marks and tokens unless the board already has a newer revision (L9).
-- One script, so that nobody ever sees an answer without its marks, or loses to a slower writer in between. While a
-- rebuild fills a new generation, both generations are written: a limit set meanwhile is in the one that comes.
--
-- METERS, POINTER and the other names in capitals are put in front of this text from `board_keys`: a name that is the
-- same in every call need not travel with every call.
--
-- KEYS: 1 guard
-- ARGV: 1 organization, 2 value, 3 revision, 4 digest of the marks, 5 tokens revision, 6 "newer" or "rewrite",
--       7 marks as JSON {limited, suspended, token_limited, active, retired}, or "" to learn whether they are needed,
--       8 an epoch to begin if there is none
-- Returns "stale", "same", "marks_needed" or "written".

local CHUNK = 1000 -- below the number of values Lua can unpack at once
local organization, value, revision = ARGV[1], ARGV[2], tonumber(ARGV[3])
local current, building = redis.call('GET', POINTER), redis.call('GET', BUILDING)

local function revision_in(generation)
  if not generation then return 0 end
  return tonumber(redis.call('HGET', REVISIONS_PREFIX .. generation, organization) or '0')
end

local function set_score(set, tokens, score)
  if #tokens == 0 or (not score and redis.call('EXISTS', set) == 0) then return end
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

local function set_owner(generation, marks)
  if not generation then return end
  local owners = TOKENS_PREFIX .. generation
  for _, token in ipairs(marks.active) do redis.call('HSET', owners, token, organization) end
  for _, token in ipairs(marks.retired) do
    if redis.call('HGET', owners, token) == organization then redis.call('HDEL', owners, token) end
  end
end

local function tell(content)
  local sequence = redis.call('INCR', SEQUENCE)
  redis.call('SET', EPOCH, ARGV[8], 'NX')
  redis.call('ZADD', CHANGED, sequence, organization)
  redis.call('PUBLISH', CHANNEL, '{"epoch":"' .. redis.call('GET', EPOCH) .. '","sequence":' .. sequence
    .. ',"organization_id":' .. cjson.encode(organization) .. ',' .. content .. '}')
end

local function tell_tokens(kind, tokens)
  for first = 1, #tokens, CHUNK do
    local chunk = {}
    for at = first, math.min(first + CHUNK - 1, #tokens) do chunk[#chunk + 1] = tokens[at] end
    tell('"' .. kind .. '":' .. cjson.encode(chunk))
  end
end

local guard = redis.call('GET', KEYS[1])
local known_revision, known_marks, known_tokens
if guard then known_revision, known_marks, known_tokens = string.match(guard, '^(%d+) (%x+) (%d+)$') end
known_revision = tonumber(known_revision or '0')
if known_revision > revision then return 'stale' end
if ARGV[6] == 'newer' and known_revision == revision then return 'same' end
local marks_change = ARGV[6] == 'rewrite' or known_marks ~= ARGV[4]
-- A generation being built that does not have this organization yet needs its tokens as well.
if marks_change or (building and revision_in(building) == 0) then
  if ARGV[7] == '' then return 'marks_needed' end
  local marks = cjson.decode(ARGV[7])
  if marks_change then
    for meter in pairs(marks.limited) do redis.call('SADD', METERS, meter) end
    for meter in pairs(marks.suspended) do redis.call('SADD', METERS, meter) end
    for meter in pairs(marks.token_limited) do redis.call('SADD', METERS, meter) end
    for _, meter in ipairs(redis.call('SMEMBERS', METERS)) do
      set_score(LIMITED_PREFIX .. meter, marks.active, marks.limited[meter])
      set_score(SUSPENDED_PREFIX .. meter, marks.active, marks.suspended[meter])
      for end_of, tokens in pairs(marks.token_limited[meter] or {}) do set_score(LIMITED_PREFIX .. meter, tokens, end_of) end
      set_score(LIMITED_PREFIX .. meter, marks.retired, nil)
      set_score(SUSPENDED_PREFIX .. meter, marks.retired, nil)
    end
  end
  set_owner(current, marks)
  set_owner(building, marks)
  if known_tokens ~= ARGV[5] and ARGV[6] == 'newer' then
    tell_tokens('retired', marks.retired)
    tell_tokens('active', marks.active)
  end
end
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
-- A rebuild tells of nothing that is on the board already; a repair tells of what it puts right.
local is_news = ARGV[6] == 'newer'
  or (current and revision_in(current) < revision)
  or (current and not building and redis.call('GET', ANSWER_PREFIX .. current .. ':' .. organization) ~= value)
for _, generation in ipairs({current or '', building or ''}) do
  if generation ~= '' then
    redis.call('SET', ANSWER_PREFIX .. generation .. ':' .. organization, value)
    redis.call('HSET', REVISIONS_PREFIX .. generation, organization, ARGV[3])
  end
end
if is_news then tell('"answer":' .. value) end
return 'written'
