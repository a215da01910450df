-- wrk script: posts the bodies of a file, each once, each with its signature. Arguments: path, file, key or "-".
-- A line of the file is SIGNATURE, a tab, and the body.
local path, bodies, n = "", {}, 0
function init(args)
  path = args[1]
  wrk.headers["Content-Type"] = "application/json"
  if args[3] ~= "-" then wrk.headers["X-Service-API-Key"] = args[3] end
  for line in io.lines(args[2]) do bodies[#bodies + 1] = line end
end
function request()
  n = n % #bodies + 1
  local tab = bodies[n]:find("\t", 1, true)
  local signature = bodies[n]:sub(1, tab - 1)
  if signature ~= "" then wrk.headers["X-Hub-Signature-256"] = signature end
  return wrk.format("POST", path, nil, bodies[n]:sub(tab + 1))
end
function done(summary)
  local e = summary.errors
  io.write(string.format("RESULT %.1f %d %d\n", summary.requests / (summary.duration / 1e6), summary.requests,
    e.status + e.connect + e.read + e.write + e.timeout))
end
