-- Release the lease of a run. A run that has not ended stays among the leases, as lapsed, so that it is found there.
-- keys: lease, leases, state
-- args: token, run_id
-- returns: 1, or 0 when another worker has the lease, or nobody.
if redis.call('GET', lease) ~= token then return 0 end
local status = redis.call('HGET', state, 'state')
if status == 'queued' or status == 'running' then redis.call('ZADD', leases, 0, run_id)
else redis.call('ZREM', leases, run_id) end
return redis.call('DEL', lease)
