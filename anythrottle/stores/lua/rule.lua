-- What all rules have in common: the twin of RuleState in rule_state.py.
--
-- Each file of the script but this one is a function of its own there, carried out when it is asked
-- for: making the functions of all kinds would take longer than all else. For the same reason few
-- of them use locals of this file, which become theirs one by one.
--
-- The same operations on doubles are made in the same order as in the ledger, and whole numbers
-- stay below 2^53, so both get the same results.

local NEVER = 9007199254740991
local ANY_NUMBER = 2147483648

local call = redis.call
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local format, match, gmatch, gsub = string.format, string.match, string.gmatch, string.gsub

-- What is stored is packed: reading and writing numbers as text takes three times as long.
local pack_numbers, unpack_numbers = cmsgpack.pack, cmsgpack.unpack

-- A whole number as text: Lua itself would write great ones with an exponent.
local function digits(number)
    return format('%.0f', number)
end

local Rule = {}
Rule.__index = Rule

-- A new kind of rule; `parent` has what it doesn't define itself.
local function new_kind(parent)
    local kind = setmetatable({}, parent)
    kind.__index = kind
    return kind
end

-- By name: the functions that make a kind, and the kinds that were made.
local PARTS, KINDS = {}, {}

local function kind_of(name)
    local kind = KINDS[name]
    if not kind then
        kind = PARTS[name]()
        KINDS[name] = kind
    end

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
