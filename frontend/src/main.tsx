// One bundle, two deliveries: with its data in the page (a report, a study, a sheet), or served by `apportion serve`.
import { render } from "preact";
import "./style.css";
import { AnswerView } from "./answer";
import type { Page } from "./data";
import { OverviewView } from "./overview";
import { ReportView } from "./report";
import { SheetView } from "./sheet";
import { StudyView } from "./study";
import { Workbench } from "./workbench";

function PageView({ page }: { page: Page }) {
  switch (page.kind) {
    case "report": return <ReportView report={page} />;
    case "study": return <StudyView study={page} />;
    case "sheet": return <SheetView sheet={page} />;
    case "answer": return <AnswerView page={page} />;
    case "overview": return <OverviewView overview={page} />;
    case "workbench": return <Workbench />;
  }
}

render(<PageView page={JSON.parse(document.getElementById("data")!.textContent!)} />, document.body);
