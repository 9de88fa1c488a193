-- Count an attempt at a run; the count restarts if more steps are committed than at the last attempt.
-- keys: state
-- args: committed_steps
-- returns: the number of attempts in a row without a new committed step, including this one.
local before = redis.call('HGET', state, 'attempt_steps')
if before and tonumber(before) >= tonumber(committed_steps) then return redis.call('HINCRBY', state, 'attempts', 1) end
redis.call('HSET', state, 'attempts', 1, 'attempt_steps', committed_steps)
return 1
