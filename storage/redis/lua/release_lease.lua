-- Release the lease of a run. A run that has not ended stays among the leases, as lapsed, so that find_lapsed finds it.
-- keys: lease, leases, state
-- args: token, run_id
-- returns: 1, or 0 when this worker does not have the lease.
if redis.call('GET', lease) ~= token then return 0 end
local status = redis.call('HGET', state, 'state')
if status == 'queued' or status == 'running' then redis.call('ZADD', leases, 0, run_id)
else redis.call('ZREM', leases, run_id) end
return redis.call('DEL', lease)
