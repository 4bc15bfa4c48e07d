// The reference of the ingest benchmark: stores what comes, in one multi-row insert a batch, and acknowledges
// it after the commit. No signature is checked, nothing is decided, nobody gets a receipt.
//
//   node worker.js SETTINGS.json
//
// prints "ready" once it is subscribed, and "stored N" each time that nothing is left to store.
import { readFileSync } from "node:fs";
import mqtt from "mqtt";
import pg from "pg";

const settings = JSON.parse(readFileSync(process.argv[2]));
const database = new pg.Client(settings.database);
await database.connect();
await database.query("CREATE TABLE reference (topic text NOT NULL, data bytea NOT NULL, at timestamptz NOT NULL)");

const client = mqtt.connect({
  protocol: "mqtts",
  protocolVersion: 5,
  host: settings.host,
  port: settings.port,
  clientId: settings.client,
  ca: readFileSync(settings.ca),
  cert: readFileSync(settings.certificate),
  key: readFileSync(settings.key),
  clean: true,
  properties: { receiveMaximum: settings.receiveMaximum },
});

let waiting = [];
let acknowledgements = [];
let storing = false;
let stored = 0;

// The library acknowledges each message before it hands over the next; here that waits for the commit.
const send = client._sendPacket.bind(client);
client._sendPacket = (packet, done, ...rest) => {
  if (packet.cmd !== "puback") return send(packet, done, ...rest);
  acknowledgements.push(packet);
  done?.();
};

client.on("message", (topic, data) => {
  waiting.push([topic, data, new Date()]);
  if (!storing) {
    storing = true;
    setImmediate(store);
  }
});

async function store() {
  while (waiting.length) {
    const rows = waiting.splice(0, settings.batch);
    const places = rows.map((_, row) => `($${3 * row + 1}, $${3 * row + 2}, $${3 * row + 3})`);
    await database.query(`INSERT INTO reference VALUES ${places.join(", ")}`, rows.flat());
    for (const packet of acknowledgements.splice(0, rows.length)) send(packet);
    stored += rows.length;
  }
  storing = false;
  console.log(`stored ${stored}`);
}

await client.subscribeAsync(settings.topic, { qos: 1 });
console.log("ready");
