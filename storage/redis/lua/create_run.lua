-- Create a run in the state queued, before its message is published.
-- keys: record, state, events, names, runs, open_runs, queue_slots, waiting
-- args: run_id, document, submitted_at, max_recent, queue_slot, idempotency_key, event, *fields
--   idempotency_key: its key in Redis, '' for none. It no longer expires, unless another run has it.
-- returns: 1, or 0 when the run exists already and nothing is written.
if redis.call('SET', record, document, 'NX') == false then return 0 end
redis.call('DEL', state, events)
redis.call('HSET', state, 'state', 'queued', 'fraction', '0', 'events', '1', 'line', queue_slot, unpack(fields))
if idempotency_key ~= '' then
  redis.call('SET', idempotency_key, run_id, 'NX')
  if on_index('GET', idempotency_key) == run_id then
    redis.call('PERSIST', idempotency_key)
    on_index('SADD', names, idempotency_key)
  end
end
redis.call('XADD', events, '*', 'event', event)
on_index('ZADD', runs, submitted_at, run_id)
on_index('ZREMRANGEBYRANK', runs, 0, -1 - tonumber(max_recent))
on_index('ZADD', open_runs, submitted_at, run_id)
on_index('SADD', queue_slots, queue_slot)
local now = redis.call('TIME')
on_index('ZADD', waiting, now[1] * 1000 + math.floor(now[2] / 1000), run_id)
return 1
