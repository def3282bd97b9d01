// Opens pages as people do, on a desktop and on a phone, by light and by dark, and says what is
// wrong: node look.mjs CHROMIUM PAGE…; prints a list of faults as JSON.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

const [executablePath, ...pages] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
// the page's own policy would keep axe out of it
const context = await browser.newContext({ bypassCSP: true });
const faults = [];
for (const path of pages) {
  const address = pathToFileURL(resolve(path)).href;
  const page = await context.newPage();
  page.on("console", (message) => faults.push(`${path}: console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`${path}: error: ${error}`));
  page.on("request", (request) => {
    if (request.url() !== address) faults.push(`${path}: asked for ${request.url()}`);
  });
  await page.goto(address);
  // what is folded away is looked at as well
  await page.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
  await page.evaluate(AXE);
  for (const width of [1280, 390])
    for (const colorScheme of ["light", "dark"]) {
      const where = `${path}, ${width} px, ${colorScheme}`;
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) faults.push(`${where}: ${wide} px wider than the screen`);
      const options = { runOnly: RULES, resultTypes: ["violations"] };
      const { passes, violations } = await page.evaluate((o) => axe.run(o), options);
      for (const { id, help, nodes } of violations)
        faults.push(`${where}: ${id}: ${help}: ${nodes[0].html.slice(0, 200)}`);
      if (passes.length < 10) faults.push(`${where}: only ${passes.length} rules had a say`);
    }
  await page.close();
}
await browser.close();
console.log(JSON.stringify(faults, null, 1));
