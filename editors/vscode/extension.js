// Starts `attnc lsp` and lets vscode-languageclient do the talking.
"use strict";

const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function start() {
  const [command, ...args] = vscode.workspace.getConfiguration("attnc").get("command");
  client = new LanguageClient(
    "attnc",
    "attnc",
    { command, args },
    { documentSelector: [{ language: "attn" }] },
  );
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    vscode.window.showErrorMessage(
      `attnc: cannot start \`${[command, ...args].join(" ")}\` (${error.message}). ` +
        "Run `pip install '.[lsp]'` in a checkout of attnc, or name the command in the setting `attnc.command`.",
    );
  }
}

async function stop() {
  const running = client;
  client = undefined;
  await running?.stop();
}

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("attnc.restart", async () => {
      await stop();
      await start();
    }),
  );
  await start();
}

module.exports = { activate, deactivate: stop };
