-- Release the lease of a run. A run that has not ended stays among the leases, to be found there once `delay_ms` passed.
-- keys: lease, leases, state
-- args: token, run_id, delay_ms
-- returns: 1, or 0 when another worker has the lease, or nobody.
if redis.call('GET', lease) ~= token then return 0 end
local status = redis.call('HGET', state, 'state')
if status == 'queued' or status == 'running' then
  local now = redis.call('TIME')
  redis.call('ZADD', leases, now[1] * 1000 + math.floor(now[2] / 1000) + delay_ms, run_id)
else redis.call('ZREM', leases, run_id) end
return redis.call('DEL', lease)
