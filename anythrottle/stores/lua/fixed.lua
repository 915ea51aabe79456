-- Fixed windows: the twin of FixedState.

local Fixed = new_kind(Rule)

function Fixed:load(text)
    self.held, self.used, self.stop, self.foreign = 0, 0, 0, 0
    if text then
        self.held, self.used, self.stop, self.foreign = unpack_numbers(text)
    end
end

function Fixed:text()
    return pack_numbers(self.held, self.used, self.stop, self.foreign)
end

function Fixed:end_from(instant)
    if self.extra < 0 then
        return instant + self.window
    end

    return instant + self.window - (instant - floor(self.extra)) % self.window
end

function Fixed:used_at(instant)
    return max(self.used - self:edges_passed(instant) * self.limit, 0)
end

-- The end of the latest window, number 1, or of one that is to follow it.
function Fixed:edge(number)
    if number == 1 then
        return self.stop
    end

    return self:end_from(self.stop) + (number - 2) * self.window
end

function Fixed:edges_passed(instant)
    if instant < self.stop then
        return 0
    end

    return floor((instant - self:edge(2)) / self.window) + 2
end

-- The end of the window that is under way at an instant, 0 if there is none.
function Fixed:end_at(instant)
    local passed = self:edges_passed(instant)
    if passed == 0 or self.used > passed * self.limit then
        return self:edge(passed + 1)
    end

    return self.extra >= 0 and self:end_from(instant) or 0
end

function Fixed:roll(now)
    local passed = self:edges_passed(now)
    if passed == 0 then
        return
    end

    local used = max(self.used - passed * self.limit, 0)
    self.foreign = max(self.foreign, self.stop)
    self.stop = used > 0 and self:edge(passed + 1) or 0
    self.used = floor(used)
end

function Fixed:open(instant, grace)
    self:roll(instant)
    if self.stop <= instant then
        self.stop = self:end_from(instant)
        if self.extra < 0 then
            self.stop = self.stop + grace
        end
    end
end

function Fixed:earliest(amount, instant, grace)
    if amount > self.limit then
        return NEVER
    end

    local excess = self:used_at(instant) + amount - self.limit
    if excess > 0 then
        local edges = ceil((self.used + amount - self.limit) / self.limit)
        instant = max(instant, self:edge(edges))
    end

    local stop = self:end_at(instant)
    if stop ~= 0 and stop - instant < grace and grace < self.window then
        return stop
    end

    return instant
end

function Fixed:fits(amount, instant)
    return floor((self.limit - self:used_at(instant)) / amount)
end

function Fixed:charge(amount, instant, grace)
    self:open(instant, grace)
    self.used = self.used + amount
    return self.stop
end

function Fixed:charge_now(amount, _, now)
    self:charge(amount, now, 0)
end

function Fixed:give_back(amount, receipt, now)
    self:roll(now)
    if now < self.stop and receipt > self.foreign then
        self.used = max(self.used - amount, 0)
    end
end

function Fixed:tighten(remaining, reset, now)
    self:roll(now)
    local free = floor(self.limit - self.used)
    reset = reset < 0 and now or min(reset, now + self.window)
    local stop = now < self.stop and self.stop or self:end_from(now)
    local next_room = self.limit - max(self.used - self.limit, 0)
    if stop < reset and self:end_from(stop) < reset then
        next_room = next_room + self.limit
    end

    local early = stop < reset and max(min(free, remaining), 0) + next_room > remaining
    if free > remaining or early then
        self:open(now, 0)
        self.used = self.used + max(free - remaining, 0)
    end

    if early then
        self.stop = reset
    end
end

function Fixed:remember(amount, receipt, now)
    self:roll(now)
    if receipt > now then
        self.stop = max(self.stop, receipt)
        self.used = self.used + amount
    end
end

function Fixed:full_at(now)
    if self:used_at(now) == 0 then
        return now
    end

    return self:edge(ceil(self.used / self.limit))
end

return Fixed
