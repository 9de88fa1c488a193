-- Uncount an attempt that ended because of its worker or a server, not because of the run.
-- keys: state
-- args: committed_steps
--   committed_steps: as when the attempt was counted. An attempt that was counted before the count restarted is gone.
-- returns: the number of attempts that are left.
local attempts = tonumber(redis.call('HGET', state, 'attempts') or '0')
if attempts == 0 or redis.call('HGET', state, 'attempt_steps') ~= committed_steps then return attempts end
return redis.call('HINCRBY', state, 'attempts', -1)
