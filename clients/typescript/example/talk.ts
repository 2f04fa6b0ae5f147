// Holds a conversation with Samovar: each argument is a message, and answers are printed as they
// come. SAMOVAR_TARGET and SAMOVAR_API_KEY say where, and as whom.

import { Client, SamovarError } from "@samovar-invalid/client";

const { SAMOVAR_TARGET, SAMOVAR_API_KEY } = process.env;
const messages = process.argv.slice(2);
const client = new Client(SAMOVAR_TARGET, {
  deadline: 60,
  ...(SAMOVAR_API_KEY && { credential: SAMOVAR_API_KEY }),
});
const session = client.session("example");

try {
  for (const message of messages.length > 0 ? messages : ["Say hello"]) {
    for await (const event of session.send(message)) {
      if (event.kind === "text_delta") {
        process.stdout.write(event.text);
      } else if (event.kind === "turn_finished") {
        console.log(`\n(${event.outcome}, ${event.usage.outputTokens} tokens)`);
      }
    }
  }
} catch (error) {
  if (!(error instanceof SamovarError)) {
    throw error;
  }
  console.error(`samovar: ${error.kind}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
