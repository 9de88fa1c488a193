-- Ask a run to stop, unless it has ended.
-- keys: state, cancel
-- returns: the state in which the run is, or nil when Redis holds nothing of it.
local status = redis.call('HGET', state, 'state')
if status == 'queued' or status == 'running' then redis.call('SET', cancel, '1') end
return status
