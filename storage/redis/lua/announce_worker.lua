-- Announce a worker until a time by the server's clock, and remove the workers whose announcement expired.
-- keys: workers, expiries
-- args: name, info, ttl_ms, key_ttl_ms
-- returns: the number of workers that were removed.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', workers, name, info)
redis.call('ZADD', expiries, now + ttl_ms, name)
local expired = redis.call('ZRANGEBYSCORE', expiries, '-inf', now)
for _, gone in ipairs(expired) do
  redis.call('HDEL', workers, gone)
  redis.call('ZREM', expiries, gone)
end
redis.call('PEXPIRE', workers, key_ttl_ms)
redis.call('PEXPIRE', expiries, key_ttl_ms)
return #expired
