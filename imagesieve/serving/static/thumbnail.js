// A small still of a picture. The browser would keep the whole file of every picture it shows;
// a thousand photographs are gigabytes, their thumbnails a few megabytes.

const SIDE = 480; // pixels: twice what a card shows, for sharp screens
const QUALITY = 0.85;

// Give a small JPEG, or null when the browser cannot decode the file.
export async function thumbnailOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null; // the server says what is wrong with it
  }
  const canvas = drawn(bitmap);
  bitmap.close();
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
}

function drawn(bitmap) {
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "white"; // the model, too, sees white where the picture is transparent
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Show a blob in an image; its address is given back as soon as it is loaded.
export function showBlob(image, blob) {
  const address = URL.createObjectURL(blob);
  const done = () => URL.revokeObjectURL(address);
  image.addEventListener("load", done, { once: true });
  image.addEventListener("error", done, { once: true });
  image.src = address;
}
