// What an application does with the Node driver: argument 1 is a good URI, argument 2 one with a wrong password.
const assert = require("assert");
const { MongoClient, ReadPreference } = require("mongodb");
const [good, wrong] = process.argv.slice(2);

async function use(uri) {
  const client = new MongoClient(uri, { serverSelectionTimeoutMS: 20000 });
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

async function work(client) {
  const c = client.db("app").collection("c");
  await c.insertMany([0, 1, 2, 3, 4].map((n) => ({ n, text: "text ".repeat(300) })));
  assert((await c.find({}, { batchSize: 2 }).toArray()).length >= 5);
  assert.equal((await c.updateOne({ n: 1 }, { $inc: { n: 1 } })).modifiedCount, 1);
  await c.insertOne({ n: 99 }, { writeConcern: { w: 0 } });
  const nearest = new ReadPreference("nearest", [{ pop: "fsn" }]);
  await c.find({}, { readPreference: nearest }).toArray();
  const session = client.startSession();
  await c.insertOne({ n: 7 }, { session });
  await c.find({}, { session }).toArray();
  await session.endSession();
}

(async () => {
  await use(good);
  await use(good + "&compressors=zlib");
  await assert.rejects(use(wrong), (e) => e.code === 18);
  console.log("node driver", require("mongodb/package.json").version, "served");
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
