// What a host writes: it has to compile under `strict`.
import { useStore } from "@nanostores/react";
import { computed } from "nanostores";

import {
  $error,
  $loading,
  $usage,
  ConflictError,
  createUsageClient,
  createUsageStores,
  defaultStrings,
  fetchUsage,
  InvalidInputError,
  type History,
  type Usage,
  type UsageClient,
} from "usage-tracking";

const client: UsageClient = createUsageClient({ baseUrl: "/api/usage/", csrf: () => "token" });
const { fetchUsageHistory } = createUsageStores(client);
const percentage = computed($usage, (usage) => usage?.meters["api"]?.percentage ?? null);

export function Percentage(): string {
  const value: number | null = useStore(percentage);
  const failed: boolean = useStore($error) !== null || useStore($loading);
  return failed ? "" : `${value} %`;
}

export async function upgrade(organization: Usage["organization"]): Promise<string[]> {
  const { etag, limits } = await client.getLimits({ organization });
  try {
    await client.updateLimits({ organization, ifMatch: etag, limits: { ...limits, api: null }, reason: "upgrade" });
  } catch (error) {
    if (error instanceof ConflictError) return [error.problem.title ?? ""];
    if (error instanceof InvalidInputError) return Object.keys(error.errors);
    throw error;
  }
  await client.resetUsage({ organization, meter: "api" });
  const history: History | undefined = await fetchUsageHistory({ since: new Date(), bucket: "week", signal: AbortSignal.timeout(9) });
  const usage: Usage | undefined = await fetchUsage();
  return history?.points.map(({ start, used }) => `${start}: ${used}`) ?? [usage?.plan ?? ""];
}

const chart = document.createElement("usage-history-chart");
chart.timeRange = "90d";
chart.data = [{ start: "2026-03-01", end: "2026-03-02", used: 1, refused: 0 }];
document.createElement("api-usage-card").limit = null;
Object.assign(defaultStrings, { retry: "Nochmal" });

// @ts-expect-error - there is no such bucket
void client.getUsageHistory({ bucket: "fortnight" });
// @ts-expect-error - nor such a range
chart.timeRange = "31d";
