-- Become or remain the elected reconciler.
-- keys: reconciler
-- args: token, ttl_ms
-- returns: 1, or 0 when another one is elected.
local elected = redis.call('GET', reconciler)
if elected and elected ~= token then return 0 end
redis.call('SET', reconciler, token, 'PX', ttl_ms)
return 1
