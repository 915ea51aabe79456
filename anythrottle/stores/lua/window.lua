-- A window from the start of the calls: the twin of WindowState.
--
-- The entries are a sorted set. An entry's score is its end, its member the end and the amount,
-- packed; no two have the same end. What changes is kept in memory, and written by flush().
--
-- The ledger goes through the entries from the first one. Here that would be slow: all that come
-- back within the horizon are in front of those that decide. So the rule remembers an `edge`, which
-- follows the latest grant, and in `passed` the sum of the entries that end until then.

local EXACT_ENTRIES = 1000
local FIRST_CHUNK = 4
local GREATEST_CHUNK = 512

local Window = new_kind(Rule)

function Window:load(text)
    self.held, self.used, self.entries, self.final, self.edge, self.passed = 0, 0, 0, 0, 0, 0
    if text then
        self.held, self.used, self.entries, self.final, self.edge, self.passed =
            unpack_numbers(text)
    end

    self.grain = max(floor(self.window / EXACT_ENTRIES), 1)
    -- How many entries are stored, and whether the key may not have been there before.
    self.in_store, self.has_new_key = self.entries, nil
    -- Until when all was forgotten, and whether something was entered since that ends before.
    self.forgotten, self.is_behind = 0, false
    -- Whether the last of the entries is not among them any more.
    self.final_gone = false
    -- By the end: amounts, as they are and as they are stored, and which of them differ.
    self.amounts, self.stored, self.changed = {}, {}, {}
    self:look_from(self.edge)
end

function Window:text()
    if self.final_gone then
        self:last_end()
    end

    return pack_numbers(
        self.held, self.used, self.entries, self.final, self.edge, self.passed)
end

-- Whether the entries are those that were counted: the server may have evicted them alone.
function Window:is_whole()
    return call('ZCARD', self.key) == self.entries
end

-- Forget which entries were read: `ends` are all those after `instant`, until `read_to`.
function Window:look_from(instant)
    self.ends, self.listed, self.place = {}, {}, 1
    self.read_to = instant
    self.chunk = FIRST_CHUNK
end

-- Begin again with the first entry.
function Window:rewind()
    self.edge, self.passed = 0, 0
    self:look_from(0)
end

function Window:learn(member)
    local stop, amount = unpack_numbers(member)
    if not self.amounts[stop] then
        self.amounts[stop], self.stored[stop] = amount, amount
    end

    return stop
end

function Window:read_more()
    if self.entries == 0 or self.final <= self.read_to then
        self.read_to = NEVER
        return
    end

    self:flush()
    local members = call('ZRANGEBYSCORE', self.key, self.read_to + 1, '+inf',
        'LIMIT', 0, self.chunk)
    for _, member in ipairs(members) do
        local stop = self:learn(member)
        self.ends[#self.ends + 1] = stop
        self.listed[stop] = true
        self.read_to = stop
    end

    if #members < self.chunk then
        self.read_to = NEVER
    end

    self.chunk = min(self.chunk * 4, GREATEST_CHUNK)
end

-- The end of an entry after the edge, by its place in `ends`.
function Window:end_at(place)
    while place > #self.ends and self.read_to < NEVER do
        self:read_more()
    end

    return self.ends[place]
end

-- Put a new end among those that were read.
function Window:list(stop)
    if stop <= self.edge or stop > self.read_to or self.listed[stop] then
        return
    end

    local place = #self.ends + 1
    while place > self.place and self.ends[place - 1] > stop do
        place = place - 1
    end

    table.insert(self.ends, place, stop)
    self.listed[stop] = true
end

function Window:amount_at(stop)
    local amount = self.amounts[stop]
    if amount then
        return amount
    end

    local member
    if self.entries > 0 and stop <= self.final then
        member = call('ZRANGEBYSCORE', self.key, stop, stop)[1]
    end

    if member then
        self:learn(member)
    else
        self.amounts[stop], self.stored[stop] = 0, 0
    end

    return self.amounts[stop]
end

-- Let the entry with this end be of this amount; 0 for none.
function Window:enter(stop, amount)
    local before = self:amount_at(stop)
    if amount == before then
        return
    end

    self.amounts[stop] = amount
    self.changed[stop] = true
    self.is_behind = self.is_behind or stop <= self.forgotten
    self.used = self.used + amount - before
    if stop <= self.edge then
        self.passed = self.passed + amount - before
    end

    if before == 0 then
        if self.entries == 0 or stop >= self.final then
            self.final, self.final_gone = stop, false
        end

        self.entries = self.entries + 1
        self:list(stop)
    elseif amount == 0 then
        self.entries = self.entries - 1
        self.final_gone = self.final_gone or stop == self.final
    end
end

function Window:flush()
    if not next(self.changed) then
        return
    end

    local new, old, added = {}, {}, 0
    for stop in pairs(self.changed) do
        local is, was = self.amounts[stop], self.stored[stop]
        if is ~= was then
            added = added + (is > 0 and 1 or 0) - (was > 0 and 1 or 0)
            if is > 0 then
                new[#new + 1] = stop
                new[#new + 1] = pack_numbers(stop, is)
            end

            if was > 0 then
                old[#old + 1] = pack_numbers(stop, was)
            end

            self.stored[stop] = is
        end
    end

    self.changed = {}
    if #new > 0 then
        self.has_new_key = self.has_new_key or self.in_store == 0 or nil
        call('ZADD', self.key, unpack(new))
    end

    self.in_store = self.in_store + added

    if #old > 0 then
        call('ZREM', self.key, unpack(old))
    end
end

function Window:last_end()
    if self.final_gone and self.entries > 0 then
        self:flush()
        self.final = self:learn(call('ZRANGE', self.key, -1, -1)[1])
    end

    self.final_gone = false
    return self.final
end

function Window:earliest(amount, instant)
    local excess = self.used + self.held + amount - self.limit
    if excess <= 0 then
        return instant
    elseif excess > self.used then
        return NEVER
    end

    if excess <= self.passed then
        self:rewind()
    end

    excess = excess - self.passed
    local place = self.place
    while true do
        local stop = self:end_at(place)
        if not stop then
            return NEVER
        end

        excess = excess - self.amounts[stop]
        if excess <= 0 then
            return max(stop, instant)
        end

        place = place + 1
    end
end

-- What is used at an instant, which becomes the edge.
function Window:used_at(instant)
    if instant <= self.forgotten and not self.is_behind then
        return self.used
    elseif instant < self.edge then
        self:rewind()
    end

    local stop = self:end_at(self.place)
    while stop and stop <= instant do
        self.passed = self.passed + self.amounts[stop]
        self.place = self.place + 1
        stop = self:end_at(self.place)
    end

    self.edge = instant
    return self.used - self.passed
end

function Window:fits(amount, instant)
    local free = self.limit - self.held - self:used_at(instant)
    return floor(free / amount)
end

function Window:add(stop, amount)
    if self.entries >= EXACT_ENTRIES then
        stop = stop + -stop % self.grain
    end

    if amount ~= 0 then
        self:enter(stop, self:amount_at(stop) + amount)
    end

    return stop
end

-- Take an amount out of the entries with ends from the first to the last, in order.
function Window:remove(amount, first, last)
    local charged = self:amount_at(first)
    local removed = min(charged, amount)
    self:enter(first, charged - removed)
    while removed < amount and first < last do
        self:flush()
        local members = call('ZRANGEBYSCORE', self.key, first + 1, last, 'LIMIT', 0, FIRST_CHUNK)
        for _, member in ipairs(members) do
            first = self:learn(member)
            local part = min(self.amounts[first], amount - removed)
            removed = removed + part
            self:enter(first, self.amounts[first] - part)
        end

        if #members < FIRST_CHUNK then
            break
        end
    end

    return removed
end

function Window:charge(amount, instant, grace)
    return self:add(instant + grace + self.window, amount)
end

function Window:charge_now(amount, at, now)
    self:forget(now)
    self:add(at + self.window, amount)
end

function Window:start(amount, at, receipt)
    local found = self:remove(amount, receipt, receipt)
    if found > 0 then
        self:add(min(at + self.window, receipt), found)
    end
end

function Window:give_back(amount, receipt, now)
    self:forget(now)
    -- Its return may have been moved, by merging or by tighten(), but never to an earlier one.
    if receipt > now then
        self:remove(amount, receipt, NEVER)
    end
end

function Window:tighten(remaining, reset, now)
    self:forget(now)
    local free = floor(self.limit - self.held - self.used)
    local withheld = max(free - remaining, 0)
    local spare = max(remaining - free, 0)
    if reset < 0 then
        self:add(now + self.window, withheld)
        return
    end

    reset = min(reset, now + self.window)
    -- What would come back before the reset comes back with it, but for what is to spare.
    self:rewind()
    local place = 1
    local stop = self:end_at(place)
    while stop and stop <= reset do
        local amount = self.amounts[stop]
        local part = min(amount, spare)
        spare = spare - part
        withheld = withheld + amount - part
        self:enter(stop, part)
        place = place + 1
        stop = self:end_at(place)
    end

    self:add(max(reset, now + 1), withheld)
end

function Window:remember(amount, receipt, now)
    if receipt > now then
        self:add(receipt, amount)
    end
end

function Window:full_at(now)
    local last = self.entries > 0 and self:last_end() or now
    return max(last, self.held ~= 0 and now + self.window or now)
end

function Window:forget(now)
    if self.forgotten == now and not self.is_behind then
        return
    end

    self.forgotten = now
    if self.entries > 0 then
        self:forget_stored(now)
    end

    -- And what was entered a moment ago.
    for stop in pairs(self.changed) do
        if stop <= now then
            self:enter(stop, 0)
        end
    end

    self.is_behind = false
end

function Window:forget_stored(now)
    local members
    repeat
        members = call('ZRANGEBYSCORE', self.key, '-inf', now, 'LIMIT', 0, GREATEST_CHUNK)
        for _, member in ipairs(members) do
            self:enter(self:learn(member), 0)
        end

        if #members > 0 then
            call('ZREM', self.key, unpack(members))
            self.in_store = self.in_store - #members
        end

        for _, member in ipairs(members) do
            self.stored[self:learn(member)] = 0
        end
    until #members < GREATEST_CHUNK
end

return Window
