// Has the report in its frame speak the language of the page around it, by the end of its address: it may read nothing else of it.
const frame = document.querySelector("iframe");
const path = frame.src;
const follow = () => frame.contentWindow.location.replace(`${path}#${speech.now()}`);

document.addEventListener("language", follow);
if (speech.now() !== "en") follow();
