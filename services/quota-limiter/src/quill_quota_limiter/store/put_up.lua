-- Puts up answers, marks and tokens of organizations unless the board already has a newer revision of theirs (L9).
-- One script, so that nobody ever sees an answer without its marks, or loses to a slower writer in between. While a
-- rebuild fills a new generation, both generations are written: a limit set meanwhile is in the one that comes.
-- Several organizations in a call look up once what is the same for all of them.
--
-- METERS, POINTER and the other names in capitals are put in front of this text from `board_keys`: a name that is the
-- same in every call need not travel with every call.
--
-- KEYS: the guard of each organization
-- ARGV: 1 "newer" or "rewrite", 2 an epoch to begin if there is none; then of each organization: itself, value,
--       revision, digest of the marks, tokens revision, and marks as JSON {limited, suspended, token_limited, active,
--       retired}, or "" to learn whether they are needed
-- Returns of each organization "stale", "same", "marks_needed" or "written".

local CHUNK = 1000 -- below the number of values Lua can unpack at once
local FIELDS = 6
local is_rewrite, new_epoch = ARGV[1] == 'rewrite', ARGV[2]
local current, building = redis.call('GET', POINTER), redis.call('GET', BUILDING)
local generations = {}
if current then generations[#generations + 1] = current end
if building then generations[#generations + 1] = building end

local meters, is_registered -- read when the first marks are written

local function register(named)
  if not meters then
    meters, is_registered = redis.call('SMEMBERS', METERS), {}
    for _, meter in ipairs(meters) do is_registered[meter] = true end
  end
  for meter in pairs(named) do
    if not is_registered[meter] then
      redis.call('SADD', METERS, meter)
      meters[#meters + 1] = meter
      is_registered[meter] = true
    end
  end
end

local is_there = {} -- sets that exist; one that a removal empties only costs the next removal its work

local function exists(set)
  if is_there[set] == nil then is_there[set] = redis.call('EXISTS', set) == 1 end
  return is_there[set]
end

local function revision_in(generation, organization)
  if not generation then return 0 end
  return tonumber(redis.call('HGET', REVISIONS_PREFIX .. generation, organization) or '0')
end

local function set_score(set, tokens, score)
  if #tokens == 0 or (not score and not exists(set)) then return end
  for first = 1, #tokens, CHUNK do
    local last = math.min(first + CHUNK - 1, #tokens)
    if score then
      local pairs_to_add = {}
      for at = first, last do
        pairs_to_add[#pairs_to_add + 1] = score
        pairs_to_add[#pairs_to_add + 1] = tokens[at]
      end
      redis.call('ZADD', set, unpack(pairs_to_add))
      is_there[set] = true
    else
      redis.call('ZREM', set, unpack(tokens, first, last))
    end
  end
end

local function set_owner(generation, organization, marks)
  local owners = TOKENS_PREFIX .. generation
  for _, token in ipairs(marks.active) do redis.call('HSET', owners, token, organization) end
  for _, token in ipairs(marks.retired) do
    if redis.call('HGET', owners, token) == organization then redis.call('HDEL', owners, token) end
  end
end

local function tell(organization, content)
  local sequence = redis.call('INCR', SEQUENCE)
  redis.call('SET', EPOCH, new_epoch, 'NX')
  redis.call('ZADD', CHANGED, sequence, organization)
  redis.call('PUBLISH', CHANNEL, '{"epoch":"' .. redis.call('GET', EPOCH) .. '","sequence":' .. sequence
    .. ',"organization_id":' .. cjson.encode(organization) .. ',' .. content .. '}')
end

local function tell_tokens(organization, kind, tokens)
  for first = 1, #tokens, CHUNK do
    local chunk = {}
    for at = first, math.min(first + CHUNK - 1, #tokens) do chunk[#chunk + 1] = tokens[at] end
    tell(organization, '"' .. kind .. '":' .. cjson.encode(chunk))
  end
end

local function put_up(guard_key, organization, value, revision_text, digest, tokens_revision, document)
  local revision = tonumber(revision_text)
  local guard = redis.call('GET', guard_key)
  local known_revision, known_marks, known_tokens
  if guard then known_revision, known_marks, known_tokens = string.match(guard, '^(%d+) (%x+) (%d+)$') end
  known_revision = tonumber(known_revision or '0')
  if known_revision > revision then return 'stale' end
  if not is_rewrite and known_revision == revision then return 'same' end
  local marks_change = is_rewrite or known_marks ~= digest
  -- A generation being built that does not have this organization yet needs its tokens as well.
  if marks_change or (building and revision_in(building, organization) == 0) then
    if document == '' then return 'marks_needed' end
    local marks = cjson.decode(document)
    if marks_change then
      register(marks.limited)
      register(marks.suspended)
      register(marks.token_limited)
      for _, meter in ipairs(meters) do
        local limited, suspended = LIMITED_PREFIX .. meter, SUSPENDED_PREFIX .. meter
        set_score(limited, marks.active, marks.limited[meter])
        set_score(suspended, marks.active, marks.suspended[meter])
        for end_of, tokens in pairs(marks.token_limited[meter] or {}) do set_score(limited, tokens, end_of) end
        set_score(limited, marks.retired, nil)
        set_score(suspended, marks.retired, nil)
      end
    end
    for _, generation in ipairs(generations) do set_owner(generation, organization, marks) end
    if known_tokens ~= tokens_revision and not is_rewrite then
      tell_tokens(organization, 'retired', marks.retired)
      tell_tokens(organization, 'active', marks.active)
    end
  end
  redis.call('SET', guard_key, revision_text .. ' ' .. digest .. ' ' .. tokens_revision)
  -- A rebuild tells of nothing that is on the board already; a repair tells of what it puts right.
  local is_news = not is_rewrite
    or (current and revision_in(current, organization) < revision)
    or (current and not building and redis.call('GET', ANSWER_PREFIX .. current .. ':' .. organization) ~= value)
  for _, generation in ipairs(generations) do
    redis.call('SET', ANSWER_PREFIX .. generation .. ':' .. organization, value)
    redis.call('HSET', REVISIONS_PREFIX .. generation, organization, revision_text)
  end
  if is_news then tell(organization, '"answer":' .. value) end
  return 'written'
end

local outcomes = {}
for at, guard_key in ipairs(KEYS) do
  local first = 3 + (at - 1) * FIELDS
  outcomes[at] = put_up(guard_key, unpack(ARGV, first, first + FIELDS - 1))
end
return outcomes
