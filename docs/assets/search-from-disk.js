// Browsers start no workers for pages that were opened from a disk. The script of the search, which
// wants to be one, runs in a hidden frame there instead; served pages are not touched.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      const prelude =
        "self.importScripts = () => {};" +
        "self.postMessage = (data) => self.frameElement.deliver(data);";
      this.frame.srcdoc =
        `<script>${prelude}</script><script src="${new URL(url, document.baseURI)}"></script>`;
      this.frame.deliver = (data) =>
        setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })));
      this.frame.addEventListener("load", () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      });
      document.body.append(this.frame);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
