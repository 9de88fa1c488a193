-- Ask a run to stop, unless it has ended.
-- keys: state, cancel
-- returns: the state of the run, or nil when Redis does not have it.
local status = redis.call('HGET', state, 'state')
if status == 'queued' or status == 'running' then redis.call('SET', cancel, '1') end
return status
