-- Take or renew the lease of a run; the run then leaves its queue slot.
-- Times are those of the server, so a worker's wrong clock does not matter.
-- A lapsed lease can be renewed if no other worker took the run (that worker would be its owner) and the run has not
-- ended, so that a pause of the worker or a loss of Redis's data does not end the run.
-- With it the broker's claim on the message is renewed, which it delivers again once its score is too old.
-- keys: lease, leases, state, started, broker_claims
-- args: token, ttl_ms, run_id, renew, waiting_prefix, tag
--   renew: '1' to renew, '' to take. waiting_prefix: the key of the runs that wait in a queue slot, before its name.
--   tag: the broker's name of the message, '' for none.
-- returns: 1 when the worker has the lease; 2 when it has and Redis has nothing else of the run; 0 when another worker
--   has it, or when it can't be renewed.
local holder = redis.call('GET', lease)
if holder and holder ~= token then return 0 end
if renew ~= '' then
  local status = redis.call('HGET', state, 'state')
  if not holder and (status == 'succeeded' or status == 'failed' or status == 'cancelled') then return 0 end
  local owner = redis.call('HGET', state, 'owner')
  if owner and owner ~= token then return 0 end
end
local queue_slot = redis.call('HGET', state, 'line')  -- before the first write: it fails if the state is damaged
local now = redis.call('TIME')
if tag ~= '' then on_index('ZADD', broker_claims, 'XX', now[1] + now[2] / 1000000, tag) end
redis.call('SET', lease, token, 'PX', ttl_ms)
on_index('ZADD', leases, now[1] * 1000 + math.floor(now[2] / 1000) + ttl_ms, run_id)
if queue_slot then
  local waiting = waiting_prefix .. queue_slot
  local joined = on_index('ZSCORE', waiting, run_id)
  if joined then
    on_index('ZREM', waiting, run_id)
    local latest = tonumber(on_index('HGET', started, queue_slot))
    if not latest or tonumber(joined) > latest then on_index('HSET', started, queue_slot, joined) end
  end
end
if redis.call('HEXISTS', state, 'state') == 0 then return 2 end
redis.call('HSET', state, 'owner', token)
return 1
