// One bundle, two deliveries: with its data in the page (a report, a study), or served by `apportion serve`.
import { render } from "preact";
import "./style.css";
import type { Page } from "./data";
import { ReportView } from "./report";
import { StudyView } from "./study";
import { Workbench } from "./workbench";

const data = JSON.parse(document.getElementById("data")!.textContent!) as Page;
render(
  data.kind === "report" ? <ReportView report={data} /> : data.kind === "study" ? <StudyView study={data} versions={data.versions} /> : <Workbench />,
  document.body,
);
