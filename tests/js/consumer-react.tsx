// What a host in React writes; the manual has the declaration.
import type { HTMLAttributes, JSX, RefAttributes } from "react";
import type { UsageElements } from "usage-tracking";

type UsageProps = {
  [Tag in keyof UsageElements]: UsageElements[Tag] &
    HTMLAttributes<HTMLElementTagNameMap[Tag]> &
    RefAttributes<HTMLElementTagNameMap[Tag]> & { onupgrade?: (event: CustomEvent) => void };
};

declare module "react" {
  namespace JSX {
    interface IntrinsicElements extends UsageProps {}
  }
}

export function Sidebar({ organization }: { organization: number }): JSX.Element {
  return (
    <>
      <api-usage-card
        key="card"
        className="wide"
        organization={organization}
        refreshSeconds={30}
        limit={null}
        onupgrade={({ detail }) => location.assign(`/billing/?meter=${detail.meter}`)}
      />
      <usage-history-chart timeRange="90d" chartTypeControls />
      {/* @ts-expect-error - there is no such range */}
      <usage-history-chart timeRange="31d" />
      {/* @ts-expect-error - nor such a property */}
      <usage-dashboard columns={3} />
    </>
  );
}
