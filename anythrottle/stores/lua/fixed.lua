-- Fixed windows: the twin of FixedState.

local Fixed = new_kind(Rule)

function Fixed:load(text)
    self.held, self.used, self.stop = 0, 0, 0
    if text then
        self.held, self.used, self.stop = unpack_numbers(text)
    end
end

function Fixed:text()
    return pack_numbers(self.held, self.used, self.stop)
end

function Fixed:end_from(instant)
    if self.extra < 0 then
        return instant + self.window
    end

    return instant + self.window - (instant - floor(self.extra)) % self.window
end

function Fixed:used_at(instant)
    if instant < self.stop then
        return self.used
    end

    local passed = floor((instant - self.stop) / self.window) + 1
    return max(self.used - passed * self.limit, 0)
end

function Fixed:roll(now)
    if now < self.stop then
        return
    end

    local passed = floor((now - self.stop) / self.window) + 1
    local used = max(self.used - passed * self.limit, 0)
    self.stop = used > 0 and self.stop + passed * self.window or 0
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
        instant = max(instant, self.stop + (edges - 1) * self.window)
    end

    local stop = instant < self.stop and self.stop or self:end_from(instant)
    local opened = instant < self.stop or self.extra >= 0
    if opened and stop - instant < grace and grace < self.window then
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
    if receipt == self.stop and now < self.stop then
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

    return self.stop + (ceil(self.used / self.limit) - 1) * self.window
end

return Fixed
