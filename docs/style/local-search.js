// Browsers start no worker for a page that was opened from the disk. There a hidden frame runs the search's script instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      const speak = "self.postMessage = (data) => parent.postMessage(data, '*');";
      this.frame.srcdoc = `<script>${speak}</script><script src="${new URL(address, location)}"></script>`;
      this.frame.onload = () => {
        for (const data of this.waiting.splice(0)) this.deliver(data);
        this.waiting = null;
      };
      this.listen = (event) => {
        if (event.source !== this.frame.contentWindow) return;
        const heard = new MessageEvent("message", { data: event.data });
        if (this.onmessage) this.onmessage(heard);
        this.dispatchEvent(heard);
      };
      addEventListener("message", this.listen);
      document.body.append(this.frame);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.deliver(data);
    }

    deliver(data) {
      const inside = this.frame.contentWindow;
      inside.dispatchEvent(new inside.MessageEvent("message", { data }));
    }

    terminate() {
      removeEventListener("message", this.listen);
      this.frame.remove();
    }
  };
}
