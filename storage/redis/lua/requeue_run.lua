-- Put a run without a lease back into its queue slot; a run that ended is only removed from the indexes.
-- keys: lease, leases, state, waiting
-- args: run_id
-- returns: the run's state, if its message must be published again; nil if it is leased or has ended.
if redis.call('EXISTS', lease) == 1 then return false end
local status = redis.call('HGET', state, 'state')  -- before the first write: it fails if the state is damaged
on_index('ZREM', leases, run_id)
on_index('ZREM', waiting, run_id)
if status ~= 'queued' and status ~= 'running' then return false end
local now = redis.call('TIME')
on_index('ZADD', waiting, now[1] * 1000 + math.floor(now[2] / 1000), run_id)
return status
