-- Slots: the twin of SlotState.

local Slots = new_kind(Rule)

function Slots:load(text)
    self.held = text and unpack_numbers(text) or 0
end

function Slots:text()
    return pack_numbers(self.held)
end

function Slots:earliest(amount, instant)
    return self.held + amount <= self.limit and instant or NEVER
end

function Slots:fits(amount)
    return floor((self.limit - self.held) / amount)
end

function Slots:charge(amount)
    self.held = self.held + amount
    return 0
end

function Slots:charge_now() end

function Slots:give_back() end

function Slots:tighten() end

function Slots:remember() end

function Slots:full_at(now)
    return now
end

return Slots
