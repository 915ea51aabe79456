-- What all rules have in common: the twin of RuleState in ledger_rules.py.
--
-- Each file of a kind adds a table to KINDS. The same operations on doubles are made in the same
-- order as there, and whole numbers stay below 2^53, so both get the same results.

local NEVER = 9007199254740991
local ANY_NUMBER = 2147483648

local call = redis.call
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local format, match, gmatch = string.format, string.match, string.gmatch

local KINDS = {}

-- A whole number as text: Lua itself would write great ones with an exponent.
local function digits(number)
    return format('%.0f', number)
end

local Rule = {}
Rule.__index = Rule

-- A kind of rule; `parent` has what it doesn't define itself.
local function new_kind(name, parent)
    local kind = setmetatable({}, parent)
    kind.__index = kind
    KINDS[name] = kind
    return kind
end

function Rule:start() end

function Rule:count(amount)
    self.held = self.held - amount
end

function Rule:forget() end

function Rule:capacity()
    return self.limit
end

-- Write what was not written at once.
function Rule:flush() end

function Rule:quota(now)
    local remaining = max(self:fits(1, now), 0)
    local more = now
    if remaining + 1 <= self:capacity() then
        more = self:earliest(remaining + 1, now, 0)
    end

    return remaining, more, self:full_at(now)
end
