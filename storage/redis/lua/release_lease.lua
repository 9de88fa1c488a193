-- Release the lease of a run. A run that has not ended stays among the leases, as lapsed, so that find_lapsed finds it.
-- keys: lease, leases, state
-- args: token, run_id
-- returns: 1, or 0 when this worker does not have the lease.
if redis.call('GET', lease) ~= token then return 0 end
redis.call('DEL', lease)  -- first, so that a damaged state keeps no lease
local status = redis.call('HGET', state, 'state')
if status == 'queued' or status == 'running' then on_index('ZADD', leases, 0, run_id)
else on_index('ZREM', leases, run_id) end
return 1
