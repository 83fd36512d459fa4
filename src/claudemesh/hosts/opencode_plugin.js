// claudemesh: puts before an opencode session what its peers send. docs/hosts/opencode.md.
// `claudemesh install opencode` writes this file, and `claudemesh uninstall opencode` removes it; do not edit it.
//
// It runs inside opencode, asks the daemon over its local socket (docs/spec/ipc.md §2.1, the attachment `hook`), and
// decides nothing: what may be shown, and what counts as read, is for the daemon. Whatever fails, the user's turn goes on.

import { realpathSync } from "node:fs"
import { lstat, readFile } from "node:fs/promises"
import { createConnection } from "node:net"
import { homedir } from "node:os"
import { dirname, join } from "node:path"

const HOST = "opencode"
const ANSWER_WITHIN_MS = 4_000
const REST_MS = 5_000 // after the daemon did not answer in time, so that it delays one step of a turn and not each
const LOOK_EVERY_MS = 1_000
const MAX_FRAME_BYTES = 4 << 20
const MAX_RECORDED = 1_000
const WRITTEN = 0x06
const NOT_WRITTEN = 0x15
const IDLE = ["Stop", "Wake"] // what is asked for an idle session alone
const OWN_TOOLS = /^claudemesh_/
const BLOCK = /^--- message ([0-9A-Za-z-]+)$/gm // a body stands behind `| `, and cannot imitate it
const IS_HEADLESS = process.argv.slice(2).includes("run") // it ends with the turn: nothing can be added to that, nor wake it

export const Claudemesh = async ({ client, directory }) => {
  const cwd = realpathSync(directory)
  const running = (globalThis[Symbol.for("claudemesh.opencode")] ??= new Set())
  if (running.has(cwd)) return {} // set up for the user and in the project, too: one of them is enough
  running.add(cwd)
  const daemon = new Daemon(cwd)
  const sessions = new Map() // our sessions by opencode's id; subagents are none
  const parents = new Map() // "" for a session that no other one started
  const fresh = new Set() // made in this process: they have no past
  let ended = Promise.resolve()

  async function parentOf(id) {
    if (!parents.has(id)) parents.set(id, (await client.session.get({ path: { id } })).data.parentID ?? "")
    return parents.get(id)
  }

  async function rootOf(id) {
    for (let parent = await parentOf(id); parent; parent = await parentOf(id)) id = parent
    return id
  }

  // A user's prompt, or ours. The first one begins a session; one that was left for it, idle, ends.
  async function prompted({ sessionID, variant }, { message, parts }) {
    if (await parentOf(sessionID)) return
    const session = sessions.get(sessionID) ?? new Session(client, daemon, sessionID)
    const isFirst = !sessions.has(sessionID)
    sessions.set(sessionID, session)
    session.begin(message, variant)
    if (parts.some((one) => one.metadata?.claudemesh)) return // ours
    const add = (text, ids) => addPart(message, parts, text, ids)
    if (isFirst) {
      await endOthers(session)
      await session.tell("SessionStart", add, !fresh.has(sessionID))
      if (!IS_HEADLESS) void session.follow()
    }
    await session.tell("UserPromptSubmit", add)
  }

  async function endOthers(session) {
    for (const other of sessions.values()) if (other !== session && !other.isWorking) await end(other)
  }

  async function end(session) {
    sessions.delete(session.id)
    await (ended = Promise.all([ended, session.end()]))
  }

  async function happened({ type, properties }) {
    const info = properties?.info
    if (type === "session.created") {
      parents.set(info.id, info.parentID ?? "")
      fresh.add(info.id)
    }
    const session = sessions.get(properties?.sessionID ?? info?.id)
    if (!session) return
    if (type === "session.deleted") await end(session)
    if (type === "session.error") session.isInterrupted ||= properties.error?.name === "MessageAbortedError"
    if (type !== "session.idle" || session.isInterrupted) return // who stopped it wants the word
    if (IS_HEADLESS) await end(session)
    else await session.endTurn()
  }

  return {
    event: ({ event }) => safely(() => happened(event)),
    "chat.message": (input, output) => safely(() => prompted(input, output)),
    "tool.execute.before": ({ tool, sessionID }) =>
      safely(async () => {
        if (OWN_TOOLS.test(tool)) await sessions.get(await rootOf(sessionID))?.tell("PreToolUse")
      }),
    "tool.execute.after": ({ sessionID }, output) =>
      safely(() => sessions.get(sessionID)?.tell("PostToolUse", (text, ids) => addOutput(output, text, ids))),
    dispose: () => {
      running.delete(cwd)
      return safely(() => Promise.all([ended, ...[...sessions.values()].map(end)]))
    },
  }
}

// One session that a user of opencode has, for as long as this process serves it.
class Session {
  constructor(client, daemon, id) {
    this.id = id
    this.isBusy = false
    this.isInterrupted = false
    this.isEnded = false
    this.client = client
    this.daemon = daemon
    this.given = new Set() // messages whose place in the record was not reported yet
    this.asked = Promise.resolve()
  }

  get isWorking() {
    return this.isBusy && !this.isInterrupted
  }

  // A turn begins; what we add later goes on with the same agent and model.
  begin({ agent, model }, variant) {
    this.isBusy = true
    this.isInterrupted = false
    const { providerID, modelID } = model
    this.as = { agent, model: { providerID, modelID }, variant: model.variant ?? variant }
  }

  async endTurn() {
    this.isBusy = false
    await this.tell("Stop", this.push, this.given.size > 0)
  }

  // Tell the daemon of an event, one after the other, and put what it answers where `put` says.
  tell(name, put, withRecord = false) {
    this.asked = this.asked.then(() => safely(() => this.ask(name, put, withRecord)))
    return this.asked
  }

  async ask(name, put, withRecord) {
    if (this.isBusy && IDLE.includes(name)) return // its user was faster
    const record = withRecord ? await this.record() : undefined
    const event = { hook_event_name: name, session_id: this.id, is_interactive: !IS_HEADLESS, record }
    const isAnswered = await this.daemon.hook(event, async (text) => {
      const ids = [...text.matchAll(BLOCK)].map((found) => found[1])
      await put(text, ids)
      for (const id of ids) this.given.add(id)
      return true
    })
    if (!isAnswered) return this.link?.close() // and say anew how it stands, once there is somebody to hear it
    for (const id of record?.answered ?? []) this.given.delete(id)
    for (const id of record?.present ?? []) this.given.add(id)
  }

  push = async (text, ids) => {
    if (this.isBusy) throw new Error("its user was faster")
    const parts = [{ type: "text", text, metadata: { claudemesh: ids } }]
    const done = await this.client.session.promptAsync({ path: { id: this.id }, body: { ...this.as, parts } })
    if (done.error) {
      this.link?.close() // and look again
      throw new Error("opencode did not take it")
    }
    this.isBusy = true
  }

  // What stands in the conversation of our messages: by our own marks, which no text in it can set.
  async record() {
    const present = new Set()
    const answered = new Set()
    const { data } = await this.client.session.messages({ path: { id: this.id } })
    for (const { info, parts } of data) {
      if (info.role === "assistant" && info.time.completed && !info.error) {
        for (const id of present) answered.add(id)
        present.clear()
      }
      for (const id of parts.flatMap(marked)) if (!answered.has(id)) present.add(id)
    }
    return { answered: [...answered].slice(-MAX_RECORDED), present: [...present].slice(-MAX_RECORDED) }
  }

  // Wait for what should wake the session, also from a daemon that began anew.
  async follow() {
    while (!this.isEnded) {
      await safely(async () => {
        this.link = await this.daemon.open()
        await this.listen(this.link)
      })
      this.link?.close()
      await pause(LOOK_EVERY_MS)
      if (!this.isEnded) await this.tell("Attach")
    }
  }

  async listen(link) {
    const which = { host: HOST, key: this.id }
    link.ask("agent.status", { ...which, status: this.isBusy ? "busy" : "idle" })
    if (!(await link.next()).ok) return
    link.ask("agent.news", which)
    for (let news = await link.next(); news.event; news = await link.next()) {
      if (news.event.wakes && !this.isBusy) void this.tell("Wake", this.push)
    }
  }

  async end() {
    this.isEnded = true
    this.link?.close()
    await this.tell("SessionEnd", undefined, this.given.size > 0)
  }
}

// The daemon of this user, found anew each time: it may have been restarted.
class Daemon {
  constructor(cwd) {
    this.cwd = cwd
    this.restsUntil = 0
  }

  async open() {
    const place = process.env.CLAUDEMESH_CONFIG_DIR || join(homedir(), ".claudemesh")
    const { socket, version } = JSON.parse(await readFile(join(place, "daemon.json"), "utf8"))
    if (!(await isOurs(dirname(socket)))) throw new Error("somebody else could be listening there")
    return new Link(socket, version)
  }

  // Report an event; `put` gets what is to be shown, and the daemon learns whether that worked. Whether it answered.
  async hook(event, put) {
    if (Date.now() < this.restsUntil) return false
    const link = await this.open()
    const names = ["CLAUDEMESH_LABEL", "CLAUDEMESH_TAGS", "CLAUDEMESH_MESH"]
    const environment = Object.fromEntries(names.map((name) => [name, process.env[name] ?? ""]))
    link.ask("hook", { host: HOST, event: { ...event, cwd: this.cwd }, environment, process: process.pid })
    const answered = link.next().then((taken) => (taken.ok ? link.next() : {}))
    const answer = await Promise.race([answered, pause(ANSWER_WITHIN_MS)])
    if (!answer) {
      this.restsUntil = Date.now() + REST_MS
      void answered.then(() => link.say(NOT_WRITTEN)).then(() => link.close())
      return false
    }
    if (answer.stdout) await ((await safely(() => put(answer.stdout))) ? link.say(WRITTEN) : link.say(NOT_WRITTEN))
    link.close()
    return answer.stdout !== undefined
  }
}

// Frames over the daemon's socket: a length of four bytes, and an object in JSON.
class Link {
  constructor(path, version) {
    this.version = version
    this.frames = []
    this.waiting = []
    this.bytes = Buffer.alloc(0)
    this.socket = createConnection(path)
    this.socket.unref() // opencode may end
    this.socket.on("data", (bytes) => {
      try {
        this.read(bytes)
      } catch {
        this.socket.destroy()
      }
    })
    for (const name of ["error", "close"]) this.socket.on(name, () => this.deliver({}))
  }

  ask(op, args) {
    const body = Buffer.from(JSON.stringify({ v: 1, version: this.version, op, args }))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(body.length)
    this.socket.write(Buffer.concat([length, body]))
  }

  say(byte) {
    return new Promise((done) => this.socket.write(Buffer.of(byte), done))
  }

  // The next frame; an empty object once the link has ended.
  next() {
    return new Promise((take) => {
      if (this.frames.length) take(this.frames.shift())
      else if (this.socket.destroyed) take({})
      else this.waiting.push(take)
    })
  }

  read(bytes) {
    this.bytes = Buffer.concat([this.bytes, bytes])
    while (this.bytes.length >= 4) {
      const end = 4 + this.bytes.readUInt32BE(0)
      if (end > MAX_FRAME_BYTES) return this.socket.destroy()
      if (this.bytes.length < end) return
      this.deliver(JSON.parse(this.bytes.subarray(4, end).toString()))
      this.bytes = this.bytes.subarray(end)
    }
  }

  deliver(frame) {
    const take = this.waiting.shift()
    if (take) take(frame)
    else this.frames.push(frame)
  }

  close() {
    this.socket.end()
    this.deliver({})
  }
}

// To what the model is sent with the user's own prompt, beside it and not in it.
function addPart({ id, sessionID }, parts, text, ids) {
  const metadata = { claudemesh: ids }
  parts.push({ id: `${parts.at(-1).id}z`, sessionID, messageID: id, type: "text", text, synthetic: true, metadata })
}

// To what a tool returned: a text, or the content that a server's tool has in place of one.
function addOutput(output, text, ids) {
  if (typeof output.output === "string") output.output += `\n\n${text}`
  else if (Array.isArray(output.content)) output.content.push({ type: "text", text })
  else throw new Error("a tool without a text")
  output.metadata = { ...output.metadata, claudemesh: [...(output.metadata?.claudemesh ?? []), ...ids] }
}

function marked(part) {
  const [ids, text] = part.type === "tool" ? [part.state.metadata?.claudemesh, part.state.output] : [part.metadata?.claudemesh, part.text]
  return Array.isArray(ids) ? ids.filter((id) => text?.includes(`--- message ${id}\n`)) : []
}

async function safely(run) {
  try {
    return await run()
  } catch {
    return undefined // no daemon, say: `claudemesh doctor` finds the cause
  }
}

// Whether nobody else can put a socket into a directory, as the daemon has it. Node does not tell who listens on one.
async function isOurs(directory) {
  const found = await lstat(directory)
  return !process.getuid || (found.isDirectory() && found.uid === process.getuid() && !(found.mode & 0o077))
}

function pause(ms) {
  return new Promise((done) => setTimeout(done, ms).unref?.())
}
