-- Count a fault of a worker that served a run, or a claim that it lost. The count restarts when more steps are
-- committed.
-- keys: state
-- returns: the number of faults in a row without a new committed step, including this one.
local steps = redis.call('HGET', state, 'attempt_steps') or ''
if redis.call('HGET', state, 'fault_steps') == steps then return redis.call('HINCRBY', state, 'faults', 1) end
redis.call('HSET', state, 'faults', 1, 'fault_steps', steps)
return 1
