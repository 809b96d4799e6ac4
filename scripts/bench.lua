-- wrk's side of scripts/bench: 1,000 distinct calls to POST /v1/decisions, in turn.
-- The caller's secret is in LEXGATE_BENCH_KEY; the last line printed is for the script to read.

local targets = {
    '"model":"assistant"',
    '"model":"payments"',
    '"model":"ward-notes-model"',
    '"deployment":"smollm2@laptop"',
    '"deployment":"mistral-small@dc-frankfurt"',
    '"deployment":"mistral-small@dc-riyadh"',
    '"deployment":"qwen3-32b@dashscope-sg"',
    '"deployment":"qwen3-32b@meridian-sg"',
}
local subjects = { "DE", "FR", "SA", "IN", "SG" }
local categories = { "dpv-pd:Contact", "dpv-pd:Health", "dpv-pd:Financial", "dpv-pd:Name", "dpv-pd:Purchase" }
local purposes = { "dpv:CustomerCare", "dpv:ServiceProvision", "dpv:Marketing", "dpv:PaymentManagement", "dpv:ScientificResearch" }

local calls = {}
local threads = 0
local turn = 0

function setup(thread)
    thread:set("first", threads * 500)
    threads = threads + 1
end

function init()
    wrk.method = "POST"
    wrk.headers["content-type"] = "application/json"
    wrk.headers["authorization"] = "Bearer " .. os.getenv("LEXGATE_BENCH_KEY")
    for _, target in ipairs(targets) do
        for _, subject in ipairs(subjects) do
            for _, category in ipairs(categories) do
                for _, purpose in ipairs(purposes) do
                    local body = string.format(
                        '{"action":"infer",%s,"data":{"personal":true,"categories":["%s"],"subjects":["%s"],"subject_count":%d},"purpose":"%s"}',
                        target, category, subject, #calls + 1, purpose)
                    calls[#calls + 1] = wrk.format(nil, nil, nil, body)
                end
            end
        end
    end
    turn = first
end

function request()
    turn = turn % #calls + 1
    return calls[turn]
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format("measured %.1f %.3f %.3f %d",
        summary.requests / (summary.duration / 1e6),
        latency:percentile(50) / 1000, latency:percentile(99) / 1000,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
