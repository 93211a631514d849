// A host's page in React: a store by its hook, and an element with properties and an event.
import { useStore } from "@nanostores/react";
import { computed } from "nanostores";
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

import { $error, $usage, fetchUsage } from "../../usage_tracking/static/usage_tracking/usage-tracking.js";

const $remaining = computed($usage, (usage) => usage?.meters.api.remaining ?? null);

function Page() {
  const remaining = useStore($remaining);
  const error = useStore($error);
  const [used, setUsed] = useState(79);
  const [upgrades, setUpgrades] = useState(0);
  return (
    <>
      <h1>React</h1>
      <p id="remaining">{error?.message ?? remaining ?? "nothing yet"}</p>
      <button onClick={() => fetchUsage()}>Fetch</button>
      <button onClick={() => setUsed(used + 1)}>Use</button>
      <api-usage-card used={used} limit={100} warningThreshold={80} onupgrade={() => setUpgrades(upgrades + 1)} />
      <p id="upgrades">{upgrades}</p>
    </>
  );
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
