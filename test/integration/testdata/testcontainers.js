// A network, a server with an alias, a published port, a health check, a file that is copied into it, and
// a client that executes commands, is restarted, and is copied from.
const { GenericContainer, Network, Wait } = require("testcontainers");
const assert = require("node:assert");

async function main() {
  const network = await new Network().start();
  const server = await new GenericContainer("busybox:latest")
    .withNetwork(network)
    .withNetworkAliases("server")
    .withExposedPorts(80)
    .withEnvironment({ WHO: "world" })
    .withLabels({ kind: "test" })
    .withCopyContentToContainer([{ content: "hello from a file\n", target: "/www/index.html" }])
    .withHealthCheck({ test: ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/"], interval: 500, timeout: 2000, retries: 10 })
    .withCommand(["sh", "-c", "echo serving $WHO; exec httpd -f -p 80 -h /www"])
    .withWaitStrategy(Wait.forAll([Wait.forLogMessage("serving world"), Wait.forHealthCheck()]))
    .start();
  const client = await new GenericContainer("busybox:latest").withNetwork(network).withCommand(["sleep", "1000"]).start();
  const { output, exitCode } = await client.exec(["wget", "-q", "-O", "-", "http://server/"]);
  assert.strictEqual(exitCode, 0);
  assert.strictEqual(output, "hello from a file\n");
  assert.ok(server.getMappedPort(80) > 0);
  await client.restart();
  assert.strictEqual((await client.exec(["sh", "-c", "echo err >&2; exit 7"])).exitCode, 7);
  const archive = await server.copyArchiveFromContainer("/www/index.html");
  let size = 0;
  for await (const piece of archive) size += piece.length;
  assert.ok(size > 512);
  await client.stop();
  await server.stop();
  await network.stop();
  console.log("all is well");
}

main().catch((err) => { console.error(err); process.exit(1); });
