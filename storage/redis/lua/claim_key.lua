-- Claim an idempotency key, or an alias, for a run. It lives as long as its run; before that is created, for ttl_s.
-- keys: key
-- args: run_id, ttl_s, run_prefix
--   run_prefix: the key of a run's state, before its id.
-- returns: the run id that owns the key.
-- A key without an expiry time is that of a run that was created. It is free once Redis no longer has that run.
local owner = on_index('GET', key)  -- a damaged key is free
if owner and redis.call('TTL', key) == -1 and redis.call('EXISTS', run_prefix .. owner) == 0 then owner = nil end
owner = owner or run_id
local state = run_prefix .. owner
local left_ms = redis.call('PTTL', state)
if left_ms ~= -2 then
  local names = state .. ':names'
  redis.call('SET', key, owner)
  on_index('SADD', names, key)
  if left_ms >= 0 then
    for _, expiring in ipairs({key, names}) do redis.call('PEXPIRE', expiring, left_ms) end
  end
elseif owner == run_id then
  redis.call('SET', key, owner, 'EX', ttl_s)
end
return owner
