// The page in a real browser, by keyboard alone: one call is allowed, one denied. What was seen, as JSON.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [url, executablePath, pictures] = process.argv.slice(2);
const axe = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", ...quiet] });

async function violations(page) {
  const found = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const { violations: faults } = await page.evaluate(() => window.axe.run());
    found.push(...faults.map((fault) => `${colorScheme}: ${fault.id} at ${fault.nodes.map((node) => node.target)}`));
  }
  return found;
}

async function reply(page, text) {
  await page.waitForFunction(() => document.activeElement.matches(".approval:has(button:enabled)"));
  for (let tabs = 0; tabs < 10; tabs += 1) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement.textContent)) === text) break;
  }
  await page.keyboard.press("Enter");
}

async function task(width, height, name) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: name === "phone" ? "dark" : "light" });
  const page = await context.newPage();
  const troubles = [];
  page.on("console", (message) => troubles.push(message.text()));
  page.on("pageerror", (error) => troubles.push(error.message));
  page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("data:") || troubles.push(request.url()));
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById("model").textContent.includes("·"));
  await page.evaluate(axe);
  const faults = await violations(page);
  await page.keyboard.type("what changed?");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".approval button:enabled");
  faults.push(...(await violations(page)));
  if (pictures) await page.screenshot({ path: `${pictures}/${name}-approval.png` });
  await reply(page, "Allow");
  await page.waitForFunction(() => document.querySelectorAll(".step").length === 2);
  await reply(page, "Deny");
  await page.waitForSelector(".waterfall");
  await page.waitForFunction(() => document.activeElement.id === "task");
  faults.push(...(await violations(page)));
  if (pictures) await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
  const seen = await page.evaluate(() => {
    const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent.trim());
    return {
      approvals: texts(".approval:not([hidden]) p"),
      results: texts(".result:not([hidden]) pre"),
      arguments: texts(".arguments tbody th, .arguments tbody td:not(.schema)"),
      said: texts(".said"),
      bars: texts(".choice .name"),
      waterfall: texts(".waterfall .name"),
      wider: document.documentElement.scrollWidth > window.innerWidth,
    };
  });
  await context.close();
  return { ...seen, faults, troubles };
}

console.log(JSON.stringify({ desktop: await task(1280, 900, "desktop"), phone: await task(390, 844, "phone") }));
await browser.close();
