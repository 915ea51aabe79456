-- One exchange of a process with the server: the twin of Ledger in ledger.py.
--
-- KEYS[1]   the limiter, with braces around all of it. A hash: the rules, the epoch, the watcher,
--           some numbers (`state`), and each rule's own (`r0` and so on).
--      :w0  a sorted set for each rule that is a window; see window.lua
--      :n   a hash: the processes
--      :a   a sorted set: until when each of them is alive
--      :h   a sorted set: the same of those that hold something
--      :q   a sorted set: those that wait, in ascending order
--      :s   a sorted set: after when each of those that have not acknowledged a grant has surely not
--           noticed it
-- ARGV      what request_args() in wire.py says
--
-- Nothing here goes through all processes or all charges, but when a process asks for the sum of
-- the censuses.

local STAND_IN = 50000
local STAGGER = 5000
local MOST_GRANTS = 100
local GATHER = 1000
local SILENCE = 50000
local PASSES = 8

-- For how long what has become void is kept.
local MARGIN = 10000000

local KEY = KEYS[1]
local NODES, QUEUE, LEASES = KEY .. ':n', KEY .. ':q', KEY .. ':a'
local HOLDERS, SILENT = KEY .. ':h', KEY .. ':s'

-- The values of the flags in ARGV.
local YES = '1'

local function server_time()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

-- All functions of this file: one upvalue for each of them, instead of many.
local E = {}

local now = server_time()
local request = {
    rules = ARGV[1],
    node = ARGV[2],
    number = tonumber(ARGV[3]),
    epoch = ARGV[4],
    fresh = ARGV[5],
    expires = tonumber(ARGV[6]),
    grace = tonumber(ARGV[7]),
    horizon = tonumber(ARGV[8]),
    lease = tonumber(ARGV[9]),
    hold_back = tonumber(ARGV[10]),
    alive = ARGV[11] == YES,
    holds = ARGV[12] == YES,
    census = ARGV[13],
    count_all = ARGV[14] == YES,
    probe = ARGV[15],
    received = ARGV[16],
    wants = tonumber(ARGV[17]),
}
local FIRST_WANT = 18

-- The limiter's own, as Ledger has it, and:
-- `tail`: the score of who joined the queue last; `known` and `waiting`: how many processes there
-- are, and wait; `leased`: the end of the latest lease that there was; `quiet_until`: no lease is
-- over before, and no process silent; `kept_until`: until when the keys live, but for the first.
local state
local rules = {}

-- By name: the processes that were read, and which of them have changed.
local nodes, changed_nodes = {}, {}

-- The queue while it is served: a part of what the server has, `again` those that were served and
-- want more, and how far either was gone through. `newcomer`: who waits alone, and isn't there yet.
local line = {names = {}, at = 1, read = 0, all_read = false, again = {}, again_at = 1}

-- The keys that may not have been there before.
local new_keys = {}

-- Numbers, separated by commas; for none a dash, as texts are told apart by spaces.
local amounts_of_text = {}
function E.amounts_of(text)
    local amounts = amounts_of_text[text]
    if not amounts then
        amounts = {}
        for number in gmatch(text, '[^,]+') do
            amounts[#amounts + 1] = tonumber(number)
        end

        amounts_of_text[text] = amounts
    end

    return amounts
end

function E.text_of(numbers)
    if #numbers == 1 then
        return digits(numbers[1])
    elseif #numbers == 0 then
        return '-'
    end

    local texts = {}
    for i, number in ipairs(numbers) do
        texts[i] = digits(number)
    end

    return table.concat(texts, ',')
end

-- Reading and writing

function E.name_rules()
    local pattern = '(%a+):([^:%s]+):(%d+):([^:%s]+):%S*'
    for kind, limit, window, extra in gmatch(request.rules, pattern) do
        local index = #rules
        rules[index + 1] = setmetatable({
            key = KEY .. ':w' .. index,
            field = 'r' .. index,
            limit = tonumber(limit),
            window = tonumber(window),
            extra = tonumber(extra),
            holds = kind == 'end' or kind == 'slots',
        }, kind_of(kind))
    end
end

-- Begin with a new state.
function E.begin()
    local keys = {KEY, NODES, QUEUE, LEASES, HOLDERS, SILENT}
    for _, rule in ipairs(rules) do
        keys[#keys + 1] = rule.key
        rule.was = nil
        rule:load()
    end

    call('DEL', unpack(keys))
    nodes, changed_nodes = {}, {}
    state = {
        is_new = true,
        epoch = request.fresh,
        -- A process that knew a former state has made grants that may start yet, or be told of.
        held_back_until = request.epoch ~= '' and now + request.hold_back or 0,
        watcher = '',
        paused_until = 0,
        last = 0,
        due_since = NEVER,
        granted = 0,
        watch_at = NEVER,
        tail = 0,
        known = 0,
        waiting = 0,
        leased = 0,
        quiet_until = NEVER,
        kept_until = 0,
    }
end

-- Whether each key has what it should have: a server that is short of memory may evict one alone.
-- HOLDERS and SILENT are not asked: without them some only wait longer.
function E.is_whole()
    for _, rule in ipairs(rules) do
        if rule.is_whole and not rule:is_whole() then
            return false
        end
    end

    return call('ZCARD', LEASES) == state.known
        and call('HLEN', NODES) == state.known
        and call('ZCARD', QUEUE) == state.waiting
end

-- Read the limiter; return the rules that others have, should they differ.
function E.read()
    E.name_rules()
    local fields = {'rules', 'epoch', 'watcher', 'state'}
    for _, rule in ipairs(rules) do
        fields[#fields + 1] = rule.field
    end

    local values = call('HMGET', KEY, unpack(fields))
    if not values[4] then
        E.begin()
        return nil
    end

    local paused, back, last, due_since, granted, watch_at, tail, known, waiting, leased, quiet,
        kept = unpack_numbers(values[4])
    state = {
        epoch = values[2],
        watcher = values[3],
        paused_until = paused,
        held_back_until = back,
        last = last,
        due_since = due_since,
        granted = granted,
        watch_at = watch_at,
        tail = tail,
        known = known,
        waiting = waiting,
        leased = leased,
        quiet_until = quiet,
        kept_until = kept,
    }
    if values[1] ~= request.rules then
        return values[1]
    end

    for i, rule in ipairs(rules) do
        rule.was = values[4 + i]
        rule:load(rule.was)
    end

    if not E.is_whole() then
        E.begin()
    end

    return nil
end

-- A process; `nil` if it is not known. What it wants, its inbox and its census stay texts.
function E.node_named(name)
    local node = nodes[name]
    if node then
        return node
    end

    local record = name ~= '' and call('HGET', NODES, name)
    if not record then
        return nil
    end

    node = E.node_of(name, unpack_numbers(record))
    node.was_held, node.was_silent_at = E.holds(node), node.silent_at
    nodes[name] = node
    return node
end

function E.node_of(name, number, buried, lease, grace, horizon, silent_at, came, census, inbox,
    wants, ...)
    return {
        name = name, number = number, buried = buried, lease = lease, grace = grace,
        horizon = horizon, silent_at = silent_at, came = came, census = census, inbox = inbox,
        wants = wants, held = {...},
    }
end

function E.new_node(name)
    local node = E.node_of(name, 0, -1, 0, 0, 0, NEVER, 0, '', '', '')
    node.was_silent_at = NEVER
    for i = 1, #rules do
        node.held[i] = 0
    end

    nodes[name] = node
    state.known = state.known + 1
    return node
end

function E.record_of(node)
    return pack_numbers(node.number, node.buried, node.lease, node.grace, node.horizon,
        node.silent_at, node.came, node.census, node.inbox, node.wants, unpack(node.held))
end

function E.holds(node)
    for _, amount in ipairs(node.held) do
        if amount ~= 0 then
            return true
        end
    end

    return false
end

-- When a process surely has not noticed a grant.
function E.patience_from(node, due)
    return due + node.grace + 2 * node.horizon + SILENCE
end

-- Put something into a sorted set, which may be new.
function E.add_to(key, score, member)
    if call('ZADD', key, score, member) == 1 then
        new_keys[key] = true
    end
end

-- Note which processes hold something, and which may be silent.
function E.classify(node)
    if E.holds(node) then
        E.add_to(HOLDERS, node.lease, node.name)
    elseif node.was_held then
        call('ZREM', HOLDERS, node.name)
    end

    if node.silent_at ~= node.was_silent_at then
        if node.silent_at < NEVER then
            E.add_to(SILENT, node.silent_at, node.name)
            state.quiet_until = min(state.quiet_until, node.silent_at)
        else
            call('ZREM', SILENT, node.name)
        end
    end
end

function E.write_nodes()
    local records = {}
    for name in pairs(changed_nodes) do
        records[#records + 1] = name
        records[#records + 1] = E.record_of(nodes[name])
        E.classify(nodes[name])
    end

    if #records > 0 then
        call('HSET', NODES, unpack(records))
    end
end

-- Let all keys live until nothing of what they say matters; return for how many milliseconds. The
-- first key tells of all others: so these may live longer, and need not be told each time.
function E.expire_others()
    local until_when = max(state.paused_until, state.held_back_until, state.leased)
    for _, rule in ipairs(rules) do
        until_when = max(until_when, rule:full_at(now), now + rule.window)
        new_keys[rule.key] = rule.has_new_key
    end

    if until_when > state.kept_until then
        state.kept_until = until_when + MARGIN
        for _, key in ipairs({NODES, LEASES, QUEUE, HOLDERS, SILENT}) do
            new_keys[key] = true
        end

        for _, rule in ipairs(rules) do
            new_keys[rule.key] = rule.entries and true
        end
    end

    local longer = digits(ceil((state.kept_until - now + MARGIN) / 1000))
    for key in pairs(new_keys) do
        call('PEXPIRE', key, longer)
    end

    return digits(ceil((until_when - now + MARGIN) / 1000))
end

function E.write()
    E.write_nodes()
    if state.is_loud then
        state.quiet_until = min(E.first_of(LEASES), E.first_of(SILENT))
    end

    local values = {'watcher', state.watcher}
    if state.is_new then
        values[3], values[4], values[5], values[6] = 'rules', request.rules, 'epoch', state.epoch
    end

    for _, rule in ipairs(rules) do
        rule:flush()
        local text = rule:text()
        if text ~= rule.was then
            values[#values + 1] = rule.field
            values[#values + 1] = text
        end
    end

    local milliseconds = E.expire_others()
    call('HSET', KEY, 'state', pack_numbers(
        state.paused_until, state.held_back_until, state.last, state.due_since, state.granted,
        state.watch_at, state.tail, state.known, state.waiting, state.leased, state.quiet_until,
        state.kept_until), unpack(values))
    call('PEXPIRE', KEY, milliseconds)
end

-- The queue

function E.join(node)
    state.tail = state.tail + 1
    state.waiting = state.waiting + 1
    if state.waiting == 1 then
        -- Nobody else waits: it may be served before it has to be written.
        line.newcomer, line.names, line.all_read = node.name, {node.name}, true
    else
        E.add_to(QUEUE, state.tail, node.name)
    end
end

function E.leave(node)
    state.waiting = state.waiting - 1
    call('ZREM', QUEUE, node.name)
end

function E.read_line()
    local chunk = line.read == 0 and 1 or 16
    line.names = call('ZRANGE', QUEUE, line.read, line.read + chunk - 1)
    line.at = 1
    line.read = line.read + #line.names
    line.all_read = #line.names < chunk
end

function E.first_in_line()
    if not line.names[line.at] and not line.all_read then
        E.read_line()
    end

    return line.names[line.at] or line.again[line.again_at]
end

-- Take the first out of line, or put it at the end.
function E.step_back(name, wants_more)
    if line.names[line.at] then
        line.at = line.at + 1
    else
        line.again_at = line.again_at + 1
    end

    if wants_more then
        line.again[#line.again + 1] = name
    else
        state.waiting = state.waiting - 1
    end
end

function E.write_line(served)
    local leaving, joining = {}, {}
    for _, name in ipairs(served) do
        if nodes[name].wants == '' and name ~= line.newcomer then
            leaving[#leaving + 1] = name
        end
    end

    for i = line.again_at, #line.again do
        state.tail = state.tail + 1
        joining[#joining + 1] = state.tail
        joining[#joining + 1] = line.again[i]
    end

    if line.newcomer and nodes[line.newcomer].wants ~= '' and line.names[line.at] then
        joining[#joining + 1] = state.tail
        joining[#joining + 1] = line.newcomer
    end

    if #joining > 0 then
        if call('ZADD', QUEUE, unpack(joining)) > 0 then
            new_keys[QUEUE] = true
        end
    end

    if #leaving > 0 then
        call('ZREM', QUEUE, unpack(leaving))
    end
end

-- What has happened

function E.was_set_back(node)
    if request.epoch ~= state.epoch or not request.alive then
        return false
    end

    return not node or request.number > node.number + 1
end

function E.bury(name)
    local node = E.node_named(name)
    if node.wants ~= '' then
        E.leave(node)
    end

    for i, rule in ipairs(rules) do
        if node.held[i] ~= 0 then
            rule:count(node.held[i], now)
        end
    end

    nodes[name] = nil
    state.known = state.known - 1
    call('HDEL', NODES, name)
    call('ZREM', LEASES, name)
    call('ZREM', HOLDERS, name)
    call('ZREM', SILENT, name)
end

function E.bury_dead()
    state.is_loud = now > state.quiet_until
    if not state.is_loud then
        return
    end

    local names
    repeat
        names = call('ZRANGEBYSCORE', LEASES, '-inf', now - 1, 'LIMIT', 0, 100)
        for _, name in ipairs(names) do
            E.bury(name)
        end
    until #names < 100
end

-- Let those wait no more that surely have not noticed what they were granted; return who it is.
function E.pass_over_silent()
    if not state.is_loud then
        return {}
    end

    local silent = call('ZRANGEBYSCORE', SILENT, '-inf', now - 1)
    local left = {}
    for _, name in ipairs(silent) do
        -- The caller has just said something, which is not written yet.
        if name ~= request.node then
            local node = E.node_named(name)
            node.silent_at = NEVER
            E.want(node, '')
            changed_nodes[name] = true
            left[#left + 1] = name
        end
    end

    return left
end

function E.hold(node, index, amount)
    node.held[index] = node.held[index] + amount
    rules[index].held = rules[index].held + amount
end

-- What each letter does to one rule's part. Receipts are `nil` where there are none.
function E.S(_, rule, _, amount, at, receipt)
    if receipt ~= 0 then
        rule:start(amount, at, receipt)
    end
end

function E.B(node, rule, index, amount, _, receipt)
    if receipt ~= 0 then
        rule:give_back(amount, receipt, now)
    else
        E.hold(node, index, -min(amount, node.held[index]))
    end
end

function E.E(node, rule, index, amount, at)
    local part = min(amount, node.held[index])
    if part ~= 0 then
        node.held[index] = node.held[index] - part
        rule:count(part, at)
    end
end

function E.H(node, _, index, amount)
    E.hold(node, index, amount)
end

-- A charge has a flag in the place of receipts: whether it is held.
function E.C(node, rule, index, amount, at, _, flag)
    if flag == YES and rule.holds then
        E.hold(node, index, amount)
    else
        rule:charge_now(amount, at, now)
    end
end

function E.move(node, letter, at, amounts, receipts)
    local amount, receipt = E.amounts_of(amounts), E.amounts_of(receipts)
    for i, rule in ipairs(rules) do
        if amount[i] ~= 0 then
            E[letter](node, rule, i, amount[i], at, receipt[i], receipts)
        end
    end
end

-- Note what has happened; return whether others are to give back what they have in stock, `nil` if
-- they need not know.
function E.apply(node, letter, at, amounts, receipts)
    if letter == 'P' then
        state.paused_until = max(state.paused_until, at)
        return false
    elseif letter == 'R' then
        state.paused_until = min(state.paused_until, now)
        return false
    elseif letter == 'T' then
        rules[amounts + 1]:tighten(tonumber(receipts), at, now)
        return true
    elseif letter == 'M' then
        rules[amounts + 1]:remember(tonumber(receipts), at, now)
    else
        E.move(node, letter, at, amounts, receipts)
    end

    return nil
end

function E.apply_all(node)
    local told
    for i = FIRST_WANT + 2 * request.wants, #ARGV, 4 do
        local news = E.apply(node, ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
        if news ~= nil then
            told = told or news
        end
    end

    return told
end

-- Take the grants that were received out of an inbox, where they are separated by semicolons.
function E.take_received(node)
    if node.inbox == '' or request.received == '' then
        return
    end

    local received, left = {}, {}
    for number in gmatch(request.received, '[^,]+') do
        received[number] = true
    end

    for grant in gmatch(node.inbox, '[^;]+') do
        if not received[match(grant, '%S+')] then
            left[#left + 1] = grant
        end
    end

    node.inbox = table.concat(left, ';')
end

-- What is wanted on top of the grants that are under way: "amounts count" separated by semicolons.
function E.unmet(node)
    local coming, wants = {}, {}
    for amounts, count in gmatch(node.inbox, '%S+ %S+ %S+ (%S+) %S+ ([^;]+)') do
        coming[amounts] = (coming[amounts] or 0) + count
    end

    for i = FIRST_WANT, FIRST_WANT + 2 * request.wants - 1, 2 do
        local amounts, count = ARGV[i], tonumber(ARGV[i + 1])
        local met = min(count, coming[amounts] or 0)
        if met > 0 then
            coming[amounts] = coming[amounts] - met
        end

        if count > met then
            wants[#wants + 1] = amounts .. ' ' .. digits(count - met)
        end
    end

    return table.concat(wants, ';')
end

function E.want(node, wants)
    if wants ~= '' and node.wants == '' then
        node.came = now
        E.join(node)
    elseif node.wants ~= '' and wants == '' then
        E.leave(node)
    end

    node.wants = wants
end

-- Note what the process says; return as E.apply() does.
function E.note(node, status)
    node.lease = now + request.lease
    node.grace, node.horizon = request.grace, request.horizon
    node.census = request.census
    changed_nodes[node.name] = true
    state.leased = max(state.leased, node.lease)
    state.quiet_until = min(state.quiet_until, node.lease)
    E.add_to(LEASES, node.lease, node.name)
    new_keys[NODES] = new_keys[LEASES]
    if status == 'lost' then
        -- It will say anew what it holds and wants, and with what it has been charged.
        node.number = request.number
        node.inbox, node.silent_at = '', NEVER
        E.want(node, '')
        return nil
    end

    E.take_received(node)
    node.silent_at = NEVER
    if node.inbox ~= '' then
        local due = tonumber(match(node.inbox, '^%S+ (%S+)'))
        node.silent_at = E.patience_from(node, max(due, now))
    end

    local told
    if request.number > node.number then
        node.number = request.number
        told = E.apply_all(node)
    end

    E.want(node, E.unmet(node))
    return told
end

-- Granting

-- The first instant, not before another one, to which all rules agree; all, or all but buckets.
-- Edges of fixed windows that leave no room between them are left out of account.
function E.agreed(amounts, instant, grace, buckets)
    local agreed = instant
    for _ = 1, PASSES do
        local before = agreed
        for i, rule in ipairs(rules) do
            if amounts[i] ~= 0 and agreed < NEVER and (buckets or not rule.level) then
                agreed = rule:earliest(amounts[i], agreed, grace)
            end
        end

        if agreed == before or agreed == NEVER then
            return agreed
        end
    end

    return E.agreed(amounts, instant, 0, buckets)
end

-- Since when a call has been due, or will be, and the instant that it can have. Before `since` it
-- could not go for other reasons.
function E.earliest(amounts, since, grace)
    since = max(since, state.paused_until, state.held_back_until)
    since = E.agreed(amounts, since, grace, true)
    if since == NEVER then
        return NEVER, NEVER
    end

    return since, E.agreed(amounts, max(since, now, state.last), grace, false)
end

-- How many calls, alike, are a turn's part of what is there.
function E.part(amounts, since, instant, latest, turns)
    local bucket = E.bucket_of(amounts)
    local there = E.fits(amounts, since, instant, bucket and instant)
    if there == 1 and since == instant and instant < latest and not E.has_edges(amounts) then
        return E.fits(amounts, since, instant, bucket and latest)
    end

    return ceil(there / turns)
end

-- How many calls, alike, may go at an instant: at least 1. Of what flows into a bucket, until the
-- latest, if there is one.
function E.fits(amounts, since, instant, latest)
    local there = ANY_NUMBER
    for i, rule in ipairs(rules) do
        if amounts[i] ~= 0 then
            if rule.level then
                there = min(there, rule:fits_until(amounts[i], since, latest or since))
            else
                there = min(there, rule:fits(amounts[i], instant))
            end
        end
    end

    return max(there, 1)
end

-- The one bucket that charges a call, and how much; `nil` if it isn't one.
function E.bucket_of(amounts)
    local bucket, amount
    for i, rule in ipairs(rules) do
        if rule.level and amounts[i] ~= 0 then
            if bucket then
                return nil
            end

            bucket, amount = rule, amounts[i]
        end
    end

    return bucket, amount
end

-- Whether a later instant may be unfit though an earlier one was fit.
function E.has_edges(amounts)
    for i, rule in ipairs(rules) do
        if rule.foreign and amounts[i] ~= 0 then
            return true
        end
    end

    return false
end

-- The instant at which the last of so many calls can go.
function E.last_of(amounts, count, since, instant)
    if count == 1 then
        return instant
    end

    local bucket, amount = E.bucket_of(amounts)
    return bucket and max(instant, bucket:due_from(amount * count, since)) or instant
end

-- Grant turns; return the grant as a text: number, due, grace, amounts, receipts, count.
function E.grant(node, amounts_text, count, since, instant)
    local amounts, receipts, begin = E.amounts_of(amounts_text), {}, 0
    for i, rule in ipairs(rules) do
        receipts[i] = 0
        if rule.holds then
            begin = count
        end

        if amounts[i] ~= 0 then
            local all = amounts[i] * count
            -- Not before: what has come back tells since when this call has been due.
            rule:forget(now)
            receipts[i] = rule:charge(all, rule.level and since or instant, node.grace)
            if rule.holds then
                node.held[i] = node.held[i] + all
            end
        end
    end

    state.last = max(state.last, instant)
    state.granted = state.granted + 1
    local text = format('%.0f %.0f %.0f %s %s %.0f', state.granted, instant, node.grace,
        amounts_text, E.text_of(receipts), count)
    node.inbox = node.inbox == '' and text or node.inbox .. ';' .. text
    node.silent_at = min(node.silent_at, E.patience_from(node, instant))
    -- Until the process speaks again.
    local waiting, running, kept = match(node.census, '([^,]*),([^,]*),([^,]*)')
    node.census = digits(max(waiting - count, 0)) .. ',' .. digits(running + begin) .. ',' .. kept
    return text
end

-- Grant a process `count` of those that it wants first.
function E.grant_first(node, count, since, instant)
    local amounts, wanted, others = match(node.wants, '^(%S+) ([^;]+);?(.*)$')
    wanted = tonumber(wanted)
    local text = E.grant(node, amounts, count, since, instant)
    if count < wanted then
        local rest = amounts .. ' ' .. digits(wanted - count)
        node.wants = others == '' and rest or rest .. ';' .. others
    else
        node.wants = others
    end

    return text
end

-- Grant what is due within the horizon, in turn. Returns the texts of what was granted by name, the
-- names in order, when the next process is due, and who that is.
function E.serve()
    local granted, served = {}, {}
    state.served = state.waiting
    -- How many have a turn yet, and which part of this turn is used.
    local turns, used, made, at = 0, 0, 0, 0
    -- What held the next call up until now is credited to no call.
    state.due_since = min(state.due_since, now)
    while state.waiting > 0 do
        local name = E.first_in_line()
        local node = E.node_named(name)
        local amounts, wanted = match(node.wants, '^(%S+) ([^;]+)')
        amounts, wanted = E.amounts_of(amounts), tonumber(wanted)
        local since, instant = E.earliest(amounts, max(node.came, state.due_since), node.grace)
        local due = instant <= now + node.horizon and made < MOST_GRANTS
        if not due and used == 0 then
            state.due_since = since
            return granted, served, instant, node
        end

        local count = 0
        if due then
            if turns == 0 or instant > at then
                -- What falls due at one instant is shared by all that wait.
                turns, at = state.waiting, instant
            end

            local latest = instant > now and min(instant + GATHER, now + node.horizon) or instant
            local part = E.part(amounts, since, instant, latest, turns)
            count = min(floor((1 - used) * part + 0.5), wanted)
            used = used + count / part
        end

        if count > 0 then
            state.due_since = since
            instant = E.last_of(amounts, count, since, instant)
            at = instant
            made = made + 1
            if not granted[name] then
                granted[name] = {}
                served[#served + 1] = name
                changed_nodes[name] = true
            end

            table.insert(granted[name], E.grant_first(node, count, since, instant))
        end

        if count == 0 or used >= 1 or node.wants == '' then
            turns, used = turns - 1, 0
            E.step_back(name, node.wants ~= '')
        end
    end

    state.due_since = NEVER
    return granted, served, NEVER, nil
end

-- Telling

function E.waits(name)
    if nodes[name] then
        return nodes[name].wants ~= ''
    end

    return name ~= '' and call('ZSCORE', QUEUE, name) and true
end

-- When something may be let go of which its process says nothing.
function E.first_silence()
    return min(E.first_of(HOLDERS) + 1, E.first_of(SILENT) + 1, NEVER)
end

-- The least score of a sorted set of instants.
function E.first_of(key)
    return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or NEVER
end

-- Make one process watch the clock; `told` may get one more.
function E.set_watch(told, due, first)
    if not first then
        state.watcher, state.watch_at = '', NEVER
        return
    end

    local come = due == NEVER and E.first_silence() or max(due - floor(first.horizon / 2), now + 1)
    local overdue = now > state.watch_at + STAND_IN + first.horizon
    local gone = overdue or not E.waits(state.watcher)
    local sooner = come < state.watch_at
    local caller = request.node
    if nodes[caller].wants ~= '' and (gone or state.watcher == caller or sooner) then
        state.watcher = caller
    elseif gone then
        state.watcher = first.name
    end

    local is_told = state.watcher == caller
    for _, name in ipairs(told) do
        is_told = is_told or name == state.watcher
    end

    if not is_told and (gone or sooner) then
        told[#told + 1] = state.watcher
        is_told = true
    end

    if is_told then
        state.watch_at = come
    end
end

-- When a process shall come again.
function E.when_to_come(name, due)
    if name == state.watcher then
        return state.watch_at
    end

    -- Until a call ends, only the watcher has a reason to come.
    due = due == NEVER and state.watch_at or due
    if due == NEVER or nodes[name].wants == '' then
        return NEVER
    end

    local position, horizon = call('ZRANK', QUEUE, name), nodes[name].horizon
    return due + STAND_IN + horizon + position * max(STAGGER, floor(horizon / 4))
end

function E.paused_until()
    return max(state.paused_until, state.held_back_until)
end

-- Publish news: `grants` are texts, each after a space.
function E.publish(channel, recall, come, due, count, grants)
    local message = format('%s %s %.0f %.0f %.0f %.0f %.0f %d %d%s', recall and '1' or '0',
        state.epoch, now, E.paused_until(), come, due, state.waiting, state.served, count, grants)

    -- A channel has the same braces as the keys, so in a cluster it is this server's. If the user
    -- may not publish, grants come late, with the next request: who listens is told of that.
    redis.pcall('SPUBLISH', KEY .. channel, message)
end

-- Tell the others: those that were served, and those that have not noticed what they were granted.
function E.tell(granted, served, silent, due, first)
    local told = {}
    for _, name in ipairs(served) do
        if name ~= request.node then
            told[#told + 1] = name
        end
    end

    E.set_watch(told, due, first)
    for _, name in ipairs(told) do
        local grants = granted[name] or {}
        local text = #grants > 0 and ' ' .. table.concat(grants, ' ') or ''
        E.publish(':n:' .. name, false, E.when_to_come(name, due), due, #grants, text)
    end

    for _, name in ipairs(silent) do
        local text, separators = gsub(nodes[name].inbox, ';', ' ')
        E.publish(':n:' .. name, false, now, due, separators + 1, ' ' .. text)
    end
end

function E.add_grants(reply, inbox)
    local count = 0
    for grant_text in gmatch(inbox, '[^;]+') do
        count = count + 1
        for part in gmatch(grant_text, '%S+') do
            reply[#reply + 1] = part
        end
    end

    return count
end

-- The sum of the censuses of all processes.
function E.count_all()
    local waiting, running, kept = 0, 0, 0
    for _, record in ipairs(call('HVALS', NODES)) do
        local _, _, _, _, _, _, _, census = unpack_numbers(record)
        local one, two, three = match(census, '([^,]*),([^,]*),([^,]*)')
        waiting, running, kept = waiting + one, running + two, kept + three
    end

    return waiting, running, kept
end

-- A reply: see reply_of() in wire.py.
function E.reply_to_none(status, theirs)
    return {
        status, theirs, 0, 0, 0, 0, state.epoch, now, E.paused_until(), NEVER, NEVER,
        state.waiting, 0, 0,
    }
end

function E.reply_to(node, status, due)
    local waiting, running, kept, probed = 0, 0, 0, 0
    if request.count_all then
        waiting, running, kept = E.count_all()
    end

    if request.probe ~= '' then
        local _, instant = E.earliest(E.amounts_of(request.probe), now, 0)
        probed = instant
    end

    local reply = {
        status, '', waiting, running, kept, probed, state.epoch, now, E.paused_until(),
        E.when_to_come(node.name, due), due, state.waiting, state.served, 0,
    }
    reply[14] = E.add_grants(reply, node.inbox)
    for _, rule in ipairs(rules) do
        reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = rule:quota(now)
    end

    return reply
end

function E.exchange()
    local theirs = E.read()
    if theirs then
        return E.reply_to_none('conflict', theirs)
    elseif request.expires > 0 and now > request.expires then
        return E.reply_to_none('stale', '')
    end

    local node = E.node_named(request.node)
    if node and request.number < node.number then
        return E.reply_to_none('stale', '')
    end

    E.bury_dead()
    node = E.node_named(request.node)
    if E.was_set_back(node) then
        E.begin()
        node = nil
    end

    local status = 'done'
    if request.epoch ~= '' and request.epoch ~= state.epoch then
        status = 'lost'
    elseif not node and request.holds or node and request.number == node.buried then
        status = 'buried'
    end

    node = node or E.new_node(request.node)
    if status == 'buried' then
        node.buried = request.number
    end

    local recall = E.note(node, status)
    if state.is_new then
        -- Processes that knew a former state have to tell what they were charged there.
        recall = recall or false
    end

    local silent = E.pass_over_silent()
    local granted, served, due, first = E.serve()
    for _, rule in ipairs(rules) do
        rule:forget(now)
    end

    E.write_line(served)
    E.write_nodes()
    changed_nodes = {}
    E.tell(granted, served, silent, due, first)
    if recall ~= nil then
        E.publish(':all', recall, NEVER, NEVER, 0, '')
    end

    local reply = E.reply_to(node, status, due)
    E.write()
    return reply
end

return E.exchange()
