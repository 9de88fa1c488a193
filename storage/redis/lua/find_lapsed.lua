-- Find the runs whose lease lapsed, by the server's clock.
-- keys: leases
-- args: limit
-- returns: their run ids, the longest lapsed first.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
return redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, limit)
