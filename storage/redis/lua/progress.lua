-- Publish an event of a run, and set the fields of its hash that follow from it.
-- keys: state, events, cancel, record, names, open_runs, lease, last_preview
-- args: run_id, ttl_s, max_events, only_from, new_state, fraction, event
-- args: writer, number, step, key, owner, preview, must_have, *fields
-- returns: 1; 0 when nothing was written: the run has ended, is not in the state `only_from`, or has another owner;
--   -1 when nothing was written because Redis has lost the run.
-- An empty argument means none. `event` is a JSON object, without its number and fraction.
-- `writer` and `number` identify a write: a write that is repeated because its response was lost has no effect.
-- `step` and `key` are those of an artifact. Artifacts are published once each, in the order of their steps: the field
-- `told` has the last step and its keys, each followed by a space.
-- `must_have` is a field of the hash that was written before this event.
-- `owner` is the token of the publisher's lease. A late write of a worker that lost its run is dropped. Without a lease
-- only a run that neither Redis nor a worker has, or one that is queued by `only_from`, can be ended.
-- Only the last preview is kept, with the number of its event, since previews are much larger than the other events.
local final = {succeeded = true, failed = true, cancelled = true}
if redis.call('HGET', state, 'writer') == writer then
  if tonumber(number) <= tonumber(redis.call('HGET', state, 'written')) then return 1 end
end
local status = redis.call('HGET', state, 'state')
if (status and final[status]) or (only_from ~= '' and status ~= only_from) then return 0 end
if owner ~= '' then
  local token = redis.call('GET', lease) or redis.call('HGET', state, 'owner')
  if token and token ~= owner then return 0 end
elseif final[new_state] and only_from ~= 'queued' and (status or redis.call('EXISTS', lease) == 1) then return 0 end
if must_have ~= '' and redis.call('HEXISTS', state, must_have) == 0 then return -1 end
local reached = redis.call('HGET', state, 'fraction') or '0'  -- compared before the first write: it may be no number
if tonumber(fraction) > tonumber(reached) then reached = fraction end
if key ~= '' then
  local published = redis.call('HGET', state, 'told') or '0 '
  local last = tonumber(string.match(published, '^%d+'))
  if last > tonumber(step) then return 1 end
  if last < tonumber(step) then published = step .. ' ' end
  if string.find(published, ' ' .. key .. ' ', 1, true) then return 1 end
  redis.call('HSET', state, 'told', published .. key .. ' ')
end
if new_state ~= '' then redis.call('HSET', state, 'state', new_state) end
redis.call('HSET', state, 'fraction', reached, 'writer', writer, 'written', number)
for i = 1, #fields, 2 do
  if fields[i] == 'started_at' then redis.call('HSETNX', state, fields[i], fields[i + 1])
  else redis.call('HSET', state, fields[i], fields[i + 1]) end
end
local n = redis.call('HINCRBY', state, 'events', 1)
local text = string.sub(event, 1, -2) .. ',"n":' .. n .. ',"fraction":' .. reached .. '}'
redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', text)
if preview ~= '' then redis.call('SET', last_preview, n .. ' ' .. preview) end
if final[new_state] then
  on_index('ZREM', open_runs, run_id)
  redis.call('DEL', last_preview)
  for _, name in ipairs(on_index('SMEMBERS', names) or {}) do
    if on_index('GET', name) == run_id then redis.call('EXPIRE', name, ttl_s) end
  end
  for _, kept in ipairs({state, events, cancel, record, names}) do redis.call('EXPIRE', kept, ttl_s) end
else
  redis.call('PERSIST', events) -- workers of release 0.1.0 let it expire under a run that waits
end
return 1
