-- A token bucket: the twin of BucketState.

local Bucket = new_kind(Rule)

function Bucket:load(text)
    self.held, self.level, self.at = 0, self.extra, 0
    if text then
        self.held, self.level, self.at = unpack_numbers(text)
    end
end

function Bucket:text()
    return pack_numbers(self.held, self.level, self.at)
end

function Bucket:due(amount)
    return min(self.at + ceil((amount - self.level) / self.limit * self.window), NEVER)
end

function Bucket:level_at(instant)
    if instant <= self.at then
        return self.level
    end

    return min(self.level + (instant - self.at) / self.window * self.limit, self.extra)
end

-- The level at which a call is granted that is due at an instant: see the ledger.
function Bucket:due_level_at(instant)
    if instant <= self.at then
        return self.level
    end

    local level = self.level + (instant - self.at) / self.window * self.limit
    return level < self.extra + self.limit / self.window and level or self.extra
end

function Bucket:earliest(amount, instant)
    if amount <= self.level then
        return instant
    elseif amount > self.extra then
        return NEVER
    end

    return max(instant, self:due(amount))
end

function Bucket:fits(amount, instant)
    return min(floor(self:level_at(instant) / amount), ANY_NUMBER)
end

-- How many calls can go one after the other, from an instant to the latest.
function Bucket:fits_until(amount, since, latest)
    local flow = max(latest - max(self.at, since), 0) / self.window * self.limit
    return min(floor((self:due_level_at(since) + flow) / amount), ANY_NUMBER)
end

-- When an amount will have been there, if what flows in since then is taken.
function Bucket:due_from(amount, since)
    local missing = max(amount - self:due_level_at(since), 0)
    if missing == 0 then
        return since
    end

    return max(since, self.at) + ceil(missing / self.limit * self.window)
end

function Bucket:charge(amount, instant)
    self.level = self:due_level_at(instant) - amount
    self.at = max(self.at, instant)
    return max(instant, self:due(self.extra))
end

function Bucket:charge_now(amount, _, now)
    self:charge(amount, now)
end

function Bucket:give_back(amount, receipt, now)
    if receipt > now then
        local back = min(amount, (receipt - now) / self.window * self.limit)
        self.level = min(self.level + back, self.extra)
    end
end

function Bucket:tighten(remaining, reset, now)
    self.level = min(self:level_at(now), remaining)
    self.at = max(self.at, now)
    if reset >= 0 then
        reset = min(reset, now + self.window)
        local missing = max(remaining - self.level, 0)
        self.at = max(self.at, reset - floor(missing / self.limit * self.window))
    end
end

function Bucket:remember(amount, receipt, now)
    if receipt > now then
        self:charge(amount, now)
    end
end

function Bucket:full_at(now)
    return max(self:due(self.extra), now)
end

function Bucket:capacity()
    return self.extra
end

return Bucket
