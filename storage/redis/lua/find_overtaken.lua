-- Find the runs of a queue slot that seem to have lost their message: those that joined the slot before the latest run
-- that was started from it, or all that wait there if the broker's list is empty.
-- keys: waiting, started, broker_list
-- args: queue_slot, limit
-- returns: their run ids.
if redis.call('LLEN', broker_list) == 0 then return redis.call('ZRANGE', waiting, 0, limit - 1) end
local latest = redis.call('HGET', started, queue_slot)
if not latest then return {} end
return redis.call('ZRANGEBYSCORE', waiting, '-inf', '(' .. latest, 'LIMIT', 0, limit)
