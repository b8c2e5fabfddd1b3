// What only the page can do: tell the theme, fill the clipboard, save files.

function currentTheme() {
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight !== undefined) return jpThemeLight === "false" ? "dark" : "light";
  return (vscodeThemeKind || "").includes("dark") ? "dark" : "light";
}

function save(name, mime, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser refused");
  }
}

function initialize({ model }) {
  const tell = () => {
    if (model.get("theme") !== currentTheme()) {
      model.set("theme", currentTheme());
      model.save_changes();
    }
  };
  tell();
  const observer = new MutationObserver(tell);
  observer.observe(document.body, {
    attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind"],
  });
  const onMessage = (message) => {
    if (message.type === "file") save(message.name, message.mime, message.text);
  };
  model.on("msg:custom", onMessage);
  return () => {
    observer.disconnect();
    model.off("msg:custom", onMessage);
  };
}

function button(label, tooltip, onClick) {
  const element = document.createElement("button");
  element.className = "jupyter-button widget-button mrviz-export";
  element.textContent = label;
  element.title = tooltip;
  element.addEventListener("click", () => onClick(element));
  return element;
}

function render({ model, el }) {
  el.classList.add("mrviz-exports");
  el.append(
    button("Copy code", "Copy the lines of Python that reproduce this view", async (element) => {
      try {
        await copy(model.get("code"));
        element.textContent = "Copied";
      } catch (error) {
        element.textContent = `Not copied: ${error.message}`;
      }
      setTimeout(() => (element.textContent = "Copy code"), 2000);
    }),
  );
  const formats = [
    ["CSV", "Save eigenvalues and residual energies as a table"],
    ["JSON", "Save choices, spectrum and conditions"],
    ["HTML", "Save the figure as a page that works without a kernel"],
  ];
  for (const [format, tooltip] of formats) {
    el.append(button(format, tooltip, () => model.send({ type: "export", format })));
  }
}

export default { initialize, render };
