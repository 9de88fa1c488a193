-- Claim an idempotency key for a run, unless it has an owner.
-- keys: idempotency_key
-- args: run_id, ttl_s
-- returns: the run id that owns the key.
if redis.call('SET', idempotency_key, run_id, 'NX', 'EX', ttl_s) then return run_id end
return redis.call('GET', idempotency_key)
