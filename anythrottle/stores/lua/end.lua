-- A window from the end of the calls, where what runs is held: the twin of EndState.

local End = new_kind(kind_of('window'))

function End:charge(amount)
    self.held = self.held + amount
    return 0
end

function End:start() end

function End:count(amount, at)
    self.held = self.held - amount
    self:add(at + self.window, amount)
end

return End
