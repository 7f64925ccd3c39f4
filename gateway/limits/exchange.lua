-- One exchange of a host with the others: what it holds and used, what it needs, what it gets.
--
-- KEYS  1 hosts: when each was last heard of    2 state: server's run, its first exchange, numbers
--       3 what other hosts want back from this one    4… one hash a limit: a field for each host
-- ARGV  1 host  2 number of the exchange  3 lease_ms  4 alive_ms  5 known_ms, then for each limit
--       most, held, used, need (-1 nothing, 0 a slice), free_in_ms (-1 unknown), keep_ms, its name
--
-- The hosts' own word is what counts: a host's field is written anew with each exchange, so an
-- answer that was lost costs nothing. Of a server that was started anew nobody gets anything
-- until every host that still holds leases has spoken.

local host, number = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local last = tonumber(redis.call('HGET', KEYS[2], 'exchanges:' .. host) or '0')
if number <= last then
  return {'stale', last}
end
redis.call('HSET', KEYS[2], 'exchanges:' .. host, number)

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('HGET', KEYS[2], 'run') ~= run then
  redis.call('HSET', KEYS[2], 'run', run, 'born', now)
end
local grace = tonumber(redis.call('HGET', KEYS[2], 'born')) + tonumber(ARGV[3]) - now
if grace < 0 then grace = 0 end

redis.call('ZADD', KEYS[1], now, host)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[5]))
local alive = redis.call('ZCOUNT', KEYS[1], now - tonumber(ARGV[4]), '+inf')
local known = redis.call('ZCARD', KEYS[1])
local speaks = {}
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - tonumber(ARGV[3]), '+inf')) do
  speaks[other] = true
end

local prefix = string.sub(KEYS[3], 1, -string.len(host) - 1)

local function exchange(key, at)
  local most, held, used = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local need, free_in = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local keep, name = tonumber(ARGV[at + 5]), ARGV[at + 6]
  local pool, unused, free_at = most - held, 0, -1
  local others = {}
  local fields = redis.call('HGETALL', key)
  for n = 1, #fields, 2 do
    local other = fields[n]
    if other ~= host then
      local o_held, o_used, o_at, o_free = string.match(fields[n + 1], '(%d+) (%d+) (%d+) (%-?%d+)')
      o_held, o_used, o_at, o_free = tonumber(o_held), tonumber(o_used), tonumber(o_at), tonumber(o_free)
      if now - o_at > keep then
        redis.call('HDEL', key, other)
      else
        pool = pool - o_held
        -- Nobody waits for what a host holds that is gone.
        if speaks[other] and o_held > o_used then unused = unused + o_held - o_used end
        if o_free > now and (free_at < 0 or o_free < free_at) then free_at = o_free end
        others[#others + 1] = other
      end
    end
  end
  local given = 0
  if grace == 0 and need >= 0 and pool > 0 then
    local slice = math.floor(pool / (2 * alive))
    if need <= pool then given = math.min(pool, math.max(need, slice)) end
  end
  if need > 0 and given == 0 then
    for _, other in ipairs(others) do
      redis.call('SADD', prefix .. other, name)
      redis.call('PEXPIRE', prefix .. other, 60000)
    end
  end
  held = held + given
  if held == 0 and used == 0 then
    redis.call('HDEL', key, host)
  else
    local own_free = -1
    if free_in >= 0 then own_free = now + free_in end
    redis.call('HSET', key, host, string.format('%.0f %.0f %.0f %.0f', held, used, now, own_free))
    redis.call('PEXPIRE', key, keep)
  end
  local free_in_ms = -1
  if free_at >= 0 then free_in_ms = free_at - now end
  return {given, pool - given, unused, free_in_ms}
end

local results = {}
for n = 4, #KEYS do
  results[n - 3] = exchange(KEYS[n], 6 + (n - 4) * 7)
end
local wanted = redis.call('SMEMBERS', KEYS[3])
if #wanted > 0 then redis.call('DEL', KEYS[3]) end
return {'ok', run, grace, known, wanted, results}
