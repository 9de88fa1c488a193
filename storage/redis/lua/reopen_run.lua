-- Queue a failed or cancelled run again; its keys no longer expire, and its counts of attempts and faults are reset.
-- Its names, which hold its id, are its own again, unless they belong to another run by now.
-- keys: state, cancel, record, events, names, open_runs, queue_slots, waiting
-- args: run_id, queue_slot
-- returns: 1, or 0 when the run has not ended, or succeeded, and nothing is written.
local status = redis.call('HGET', state, 'state')
if status ~= 'failed' and status ~= 'cancelled' then return 0 end
redis.call('HSET', state, 'state', 'queued', 'error', '', 'finished_at', '', 'line', queue_slot)
redis.call('HDEL', state, 'attempts', 'attempt_steps', 'faults', 'fault_steps')
redis.call('DEL', cancel)
for _, key in ipairs({state, record, events, names}) do redis.call('PERSIST', key) end
for _, name in ipairs(on_index('SMEMBERS', names) or {}) do
  redis.call('SET', name, run_id, 'NX')
  if on_index('GET', name) == run_id then redis.call('PERSIST', name) end
end
local now = redis.call('TIME')
on_index('ZADD', open_runs, now[1] + now[2] / 1000000, run_id)
on_index('SADD', queue_slots, queue_slot)
on_index('ZADD', waiting, now[1] * 1000 + math.floor(now[2] / 1000), run_id)
return 1
